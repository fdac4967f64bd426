"""Of more subjects than are wanted those are taken that are least alike, as many of each kind."""

import dataclasses

import numpy as np
import pytest
from labelled_rows import labelled

from qdgs_jax.datasets.distinct import distinct_subjects


def subjects(means, kinds, size=2, spread=0.01):
    """Rows of subjects with these mean latents, `size` rows each about them; and their kinds."""
    means = np.asarray(means, np.float32)
    steps = spread * (np.arange(size) - (size - 1) / 2)
    latents = np.concatenate([mean + steps[:, None] for mean in means]).astype(np.float32)
    numbers = np.repeat(np.arange(len(means), dtype=np.int32), size)
    cells = np.arange(len(latents))
    rows = labelled(
        np.repeat(kinds, size), np.zeros((len(latents), 1)), cells=cells, latents=latents
    )
    return dataclasses.replace(rows, subjects=numbers), np.repeat(kinds, size)


def taken(found, size=2):
    """Which subjects were taken, in order, by the cells of their rows."""
    return (found.elites.cells[::size] // size).tolist()


def test_the_next_is_the_one_farthest_from_all_that_were_taken():
    rows, kinds = subjects([[0.0], [1.0], [10.0], [9.0], [4.0]], np.zeros(5, int))
    found = distinct_subjects(rows, kinds, 10)
    assert taken(found) == [0, 2, 4, 1, 3]
    assert found.subjects.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert taken(distinct_subjects(rows, kinds, 6)) == [0, 2, 4]


def test_kinds_take_turns_and_look_at_each_other():
    """The second kind's face that is the first kind's with another skin comes last."""
    rows, kinds = subjects([[0.0], [5.0], [0.1], [20.0], [8.0]], np.array([0, 0, 1, 1, 1]))
    found = distinct_subjects(rows, kinds, 100)
    assert taken(found) == [0, 3, 1, 4, 2]
    assert len(found) == 10


def test_a_kind_with_large_subjects_takes_fewer_turns():
    one, first = subjects([[0.0], [10.0]], np.zeros(2, int), size=4)
    two, second = subjects([[3.0], [6.0], [30.0]], np.ones(3, int), size=2)
    rows = labelled(
        np.concatenate([first, second]),
        np.zeros((14, 1)),
        cells=np.arange(14),
        latents=np.concatenate([one.elites.latents, two.elites.latents]),
    )
    rows = dataclasses.replace(rows, subjects=np.concatenate([one.subjects, two.subjects + 2]))
    found = distinct_subjects(rows, np.concatenate([first, second]), 9)
    assert found.labels.tolist() == [0] * 4 + [1] * 4 + [0]  # cut short at nine rows
    assert found.subjects.tolist() == [0] * 4 + [1] * 2 + [2] * 2 + [3]


def test_the_choice_is_more_distinct_than_the_first_of_crowded_rows():
    rng = np.random.default_rng(0)
    crowd = np.repeat(rng.normal(size=(20, 8)), 10, axis=0) + 0.01 * rng.normal(size=(200, 8))
    rows, kinds = subjects(crowd, np.arange(200) % 2)
    found = distinct_subjects(rows, kinds, 40)
    means = found.elites.latents[::2]
    apart = np.linalg.norm(means[:, None] - means[None], axis=-1) + 10 * np.eye(20)
    assert apart.min() > 0.5
    assert np.bincount(found.labels).tolist() == [20, 20]


def test_rows_without_subjects_are_refused():
    rows = labelled(np.zeros(3, int), np.zeros((3, 1)), latents=np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match="have no subjects"):
        distinct_subjects(rows, np.zeros(3, int), 2)
