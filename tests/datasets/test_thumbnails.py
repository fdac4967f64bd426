"""Thumbnails: those of the elites that an atlas shows, small, and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qdgs_jax.datasets.thumbnails import (
    KEPT,
    choose,
    pairs_of,
    read_thumbnails,
    shown_elites,
    shrink,
    write_thumbnails,
)
from qdgs_jax.elites import Elites


def elites(cells: list[int], objectives: list[float]) -> Elites:
    count = len(cells)
    return Elites(
        cells=np.array(cells),
        objectives=np.array(objectives),
        thresholds=np.zeros(count),
        measures=np.zeros((count, 2)),
        latents=np.array(cells, np.float32)[:, None],
    )


def test_the_best_elite_of_each_place_is_chosen() -> None:
    cells = np.array([0, 1, 40 * 39 + 39])  # the first two share a place of 20 x 20
    rows, places, size = choose(cells, np.array([1.0, 2.0, 0.5]), (40, 40), (0, 1))
    assert size == (20, 20)
    assert rows.tolist() == [1, 2]
    assert places.tolist() == [[0, 0], [19, 19]]


def test_an_elite_of_several_atlases_is_shown_once() -> None:
    shown = shown_elites(elites([0, 7], [1.0, 2.0]), (2, 2, 2))
    assert shown.cells.tolist() == [0, 7]
    assert pairs_of(5) == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 3)]


def test_every_elite_of_a_small_archive_is_pictured_and_of_a_large_one_those_in_atlases() -> None:
    few, many = list(range(KEPT)), list(range(60 * 60))
    assert len(shown_elites(elites(few, [0.0] * len(few)), (60, 60)).cells) == KEPT
    assert len(shown_elites(elites(many, [0.0] * len(many)), (60, 60)).cells) == 20 * 20


def test_thumbnails_come_back_by_cell(tmp_path: Path) -> None:
    def decode(latents: np.ndarray):  # type: ignore[no-untyped-def]
        for latent in latents:
            yield np.full((1, 8, 8, 3), latent[0], np.uint8)

    path = tmp_path / "thumbnails.parquet"
    assert read_thumbnails(path) is None
    write_thumbnails(path, elites([3, 9], [1.0, 1.0]), (10, 10), decode)
    read = read_thumbnails(path)
    assert read is not None
    assert {cell: int(image[0, 0, 0]) for cell, image in read.items()} == {3: 3, 9: 9}
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"cannot be read .*delete it and the folder data"):
        read_thumbnails(path)


@pytest.mark.parametrize(("size", "small"), [((8, 8), (40, 40)), ((80, 160), (20, 40))])
def test_pictures_keep_their_proportions(size: tuple[int, int], small: tuple[int, int]) -> None:
    assert shrink(np.zeros((*size, 3), np.uint8)).shape == (*small, 3)
