"""The drawn stand-in for sets of real faces: who is in it, and which pairs are verified."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from qdgs_jax.datasets.face_pairs import read_pairs, write_pairs
from qdgs_jax.datasets.manifest import read_manifest
from qdgs_jax.datasets.shards import read_rows
from qdgs_jax.domains.faces_drawing import SKIN
from qdgs_jax.ports.faces.pairs import FacePairs
from qdgs_jax.train.faces import drawn


@pytest.fixture(scope="module", autouse=True)
def _blank() -> Iterator[None]:
    """Pictures of nothing: drawing takes seconds to compile, and who is drawn is told beside."""

    def pictures(faces, side):
        yield np.zeros((len(faces.yaw), side, side, 3), np.uint8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn, "_pictures", pictures)
        yield


@pytest.fixture(scope="module")
def trained() -> drawn.Faces:
    return drawn.draw_trained(3, 2000, 4, 16)


@pytest.fixture(scope="module")
def tested() -> drawn.Faces:
    return drawn.draw_tested(3, 30, 4, 16)


def who(faces: drawn.Faces) -> np.ndarray:
    """All numbers of each person, Float[K, ...]."""
    return np.concatenate([np.asarray(v).reshape(len(v), -1) for v in faces.identities], axis=1)


def test_people_to_learn_from_are_in_ffhqs_proportions(trained: drawn.Faces) -> None:
    assert trained.images.shape == (8000, 16, 16, 3)
    np.testing.assert_array_equal(trained.people, np.repeat(np.arange(2000), 4))
    shares = np.bincount(trained.groups[::4, 0], minlength=3) / 2000
    np.testing.assert_allclose(shares, [0.731, 0.171, 0.098], atol=0.03)


def test_people_to_verify_are_as_many_of_each_skin_group_and_others(
    trained: drawn.Faces, tested: drawn.Faces
) -> None:
    np.testing.assert_array_equal(np.bincount(tested.groups[::4, 0]), [30, 30, 30])
    apart = np.abs(who(trained)[:, None] - who(tested)[None]).max(axis=2)
    assert apart.min() > 0.05  # nobody is in both, nor anybody's double
    again = drawn.draw_tested(3, 30, 4, 16)
    np.testing.assert_array_equal(who(again), who(tested))
    assert np.abs(who(drawn.draw_tested(4, 30, 4, 16)) - who(tested)).max() > 0.1


def test_pictures_of_a_person_differ_and_the_person_stays(trained: drawn.Faces) -> None:
    assert np.median(trained.yaw.reshape(2000, 4).std(axis=1)) > 0.1
    groups = trained.groups.reshape(2000, 4, 3)
    assert (groups == groups[:, :1]).all()


def test_pairs_are_balanced_within_each_skin_group(tested: drawn.Faces) -> None:
    faces = tested
    pairs = drawn.choose_pairs(0, faces, 200)
    assert len(pairs) == 600
    for number, name in enumerate(SKIN):
        members = np.array(pairs.groups) == name
        assert members.sum() == 200
        assert pairs.same[members].sum() == 100
        for side in (pairs.first, pairs.second):
            assert (faces.groups[side[members], 0] == number).all()
    people = faces.people[pairs.first], faces.people[pairs.second]
    np.testing.assert_array_equal(people[0] == people[1], pairs.same)
    # An impostor is of the same age group and gender, too; and no pair comes twice.
    np.testing.assert_array_equal(faces.groups[pairs.first], faces.groups[pairs.second])
    ends = np.sort(np.stack([pairs.first, pairs.second]), axis=0)
    assert (ends[0] < ends[1]).all()
    assert len(np.unique(ends, axis=1).T) == 600
    # Both kinds in every tenth, of which folds are made.
    assert all(0 < fold.sum() < len(fold) for fold in np.split(pairs.same[:200], 10))


def test_sets_are_biased_as_benchmarks_are_and_differ_as_they_say(tested: drawn.Faces) -> None:
    faces = tested
    sets = drawn.choose_sets(0, faces, 60)
    assert list(sets) == ["any", "pose", "hair"]
    for pairs in sets.values():
        assert pairs.same.sum() == 30
        assert (np.array(pairs.groups) == "light").mean() > 0.5
        assert (np.array(pairs.groups) == "dark").mean() < 0.3
    pose, hair = sets["pose"], sets["hair"]
    assert (np.abs(faces.yaw[pose.first] - faces.yaw[pose.second]) >= drawn.TURNED).all()
    assert (faces.hair[hair.first] != faces.hair[hair.second]).all()


@pytest.mark.parametrize(
    ("pairs", "message"),
    [(3, "pairs is 3: give an even number"), (400, r"180 pairs of one person, 200 are wanted")],
)
def test_pairs_that_cannot_be_chosen_are_refused(
    tested: drawn.Faces, pairs: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        drawn.choose_pairs(0, tested, pairs)


def test_faces_and_pairs_become_shards(tested: drawn.Faces, tmp_path: Path) -> None:
    drawn.write_faces(tested, tmp_path / "real", shard_size=70)
    np.testing.assert_array_equal(read_rows(tmp_path / "real").subjects, tested.people)
    assert read_manifest(tmp_path / "real").source["identities"] == 90
    images = (np.arange(len(tested.images)) % 256).astype(np.uint8)[:, None, None, None]
    pairs = drawn.choose_pairs(0, tested, 20)
    shown = FacePairs(np.broadcast_to(images, tested.images.shape), pairs)
    write_pairs(tmp_path / "pairs", shown)
    back = read_pairs(tmp_path / "pairs")
    assert back.images.shape == tested.images.shape
    for side, wanted in ((back.index.first, pairs.first), (back.index.second, pairs.second)):
        np.testing.assert_array_equal(back.images[side, 0, 0, 0], wanted % 256)
    np.testing.assert_array_equal(back.index.same, pairs.same)
    assert back.index.groups == pairs.groups
