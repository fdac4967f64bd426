"""Latents become subjects: rows of one person together, in every class, however few they are."""

import jax
import numpy as np
import pytest
import torch_writer as tw
from labelled_rows import labelled

from qdgs_jax import keys, ports
from qdgs_jax.datasets.augment import Augmented, draw_augmentations, read_augmentations
from qdgs_jax.datasets.subjects import Grouping, group_subjects

KEY = keys.stream(keys.root(0), "a test")


def people(count, dim=20, seed=0):
    """Pairs of latents near each other, of two classes in turn; rows are shuffled."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count, dim))
    latents = np.repeat(centres, 2, axis=0) + 0.05 * rng.normal(size=(2 * count, dim))
    person = np.repeat(np.arange(count), 2)
    order = rng.permutation(2 * count)
    rows = labelled(
        (person % 2)[order],
        np.zeros((2 * count, 1)),
        cells=person[order],
        latents=latents.astype(np.float32)[order],
    )
    return rows, person[order]


def test_pairs_are_found_and_kept_together():
    rows, _ = people(20)
    lines = []
    found = group_subjects(
        rows, Grouping(2, restarts=3, iterations=50), KEY, names=("young", "old"), tell=lines.append
    )
    assert sorted(found.subjects.tolist()) == found.subjects.tolist()
    assert np.unique(found.subjects).tolist() == list(range(20))
    for subject in range(20):
        assert len(np.unique(found.elites.cells[found.subjects == subject])) == 1
    np.testing.assert_array_equal(found.labels, found.elites.cells % 2)
    assert sorted(found.elites.latents[:, 0]) == sorted(rows.elites.latents[:, 0])
    assert any("'young': 20 latents, 10 subjects" in line for line in lines)


def test_subjects_are_counted_in_the_order_of_the_rows():
    rows, person = people(6)
    found = group_subjects(rows, Grouping(2, restarts=5), KEY)
    _, first = np.unique(person, return_index=True)
    wanted = person[np.sort(first)]
    assert found.elites.cells[::2].tolist() == wanted.tolist()


def test_equal_keys_give_equal_subjects():
    rows, _ = people(20, seed=3)
    one, two = (group_subjects(rows, Grouping(3, restarts=1), KEY) for _ in range(2))
    for name, column in one.columns().items():
        np.testing.assert_array_equal(column, two.columns()[name])


@pytest.mark.parametrize(("size", "sizes"), [(2, [1, 2]), (1, [1, 1, 1]), (5, [1, 2])])
def test_few_latents_are_subjects_too(size, sizes):
    """One latent of a class is a subject alone; a class without latents has none."""
    rows = labelled(np.array([0, 2, 2]), np.zeros((3, 1)), latents=np.eye(3, 20, dtype=np.float32))
    found = group_subjects(rows, Grouping(size), KEY)
    assert sorted(np.bincount(found.subjects).tolist()) == sizes


def test_augmentations_are_read_from_a_ported_file(tmp_path):
    rows = np.random.default_rng(0).normal(size=(9, 20))
    rows[4] = 0
    (tmp_path / "augmentations.pt").write_bytes(tw.zip_bytes(rows))
    ports.convert("latents", tmp_path / "augmentations.pt", tmp_path / "aug")
    found = read_augmentations(tmp_path / "aug", 20)
    np.testing.assert_array_equal(found, rows.astype(np.float32))
    with pytest.raises(ValueError, match=r"aug holds augmentations of 20 numbers.* have 32"):
        read_augmentations(tmp_path / "aug", 32)


def test_a_count_beside_a_list_of_latents_keeps_it_from_nothing(tmp_path):
    rows = np.ones((9, 20), np.float32)
    (tmp_path / "aug.pt").write_bytes(tw.zip_bytes({"n": np.asarray(9), "directions": rows}))
    summary = ports.convert("latents", tmp_path / "aug.pt", tmp_path / "aug")
    assert summary.elsewhere == {"n": 1}
    np.testing.assert_array_equal(read_augmentations(tmp_path / "aug", 20), rows)


def test_a_file_of_several_tensors_is_no_list_of_latents(tmp_path):
    (tmp_path / "two.pt").write_bytes(tw.zip_bytes({"a": np.ones((2, 3)), "b": np.ones(3)}))
    with pytest.raises(ports.CheckpointError, match=r"one tensor\. The file holds a, b"):
        ports.convert("latents", tmp_path / "two.pt", tmp_path / "out")
    (tmp_path / "three.pt").write_bytes(tw.zip_bytes(np.ones((2, 3, 4))))
    with pytest.raises(ports.CheckpointError, match="should have 2 axes"):
        ports.convert("latents", tmp_path / "three.pt", tmp_path / "out")


def test_drawn_augmentations_begin_with_the_latent_itself():
    drawn = draw_augmentations(jax.random.key(0), 5, 0.2, 4000)
    assert drawn.shape == (5, 4000)
    assert not drawn[0].any()
    np.testing.assert_allclose(drawn[1:].std(1), 0.2, rtol=0.05)


def test_augmented_latents_are_made_slice_by_slice():
    rng = np.random.default_rng(0)
    latents, rows = rng.normal(size=(4, 3)), rng.normal(size=(2, 3))
    augmented = Augmented(latents, rows)
    assert len(augmented) == 8
    every = (latents[:, None] + rows[None]).reshape(8, 3)
    np.testing.assert_array_equal(augmented[0:8], every)
    np.testing.assert_array_equal(augmented[3:6], every[3:6])
    np.testing.assert_array_equal(augmented[6:20], every[6:])
