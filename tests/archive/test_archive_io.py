"""Archives written as tables and read back."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from qdgs_jax.archive import GridArchive
from qdgs_jax.archive.cvt import CVTArchive

GRID = {"dims": (4, 3), "ranges": ((-1, 1), (0, 2))}


def filled(archive):
    rng = np.random.default_rng(0)
    batch = ((8, 3), (8, archive.centroids.shape[1]), (8,))
    for _ in range(2):
        archive = archive.add(*(jnp.asarray(rng.normal(size=x), jnp.float32) for x in batch))
    return archive


@pytest.fixture(scope="module")
def archives():
    annealed = GridArchive.create(
        np.zeros(3, np.float32), **GRID, learning_rate=0.1, threshold_min=0.0, dtype=jnp.bfloat16
    )
    centroids = np.random.default_rng(1).uniform(-1, 1, (6, 2))
    voronoi = CVTArchive.create(
        np.zeros(3, np.float32), centroids=centroids, ranges=((-1, 1),) * 2, qd_score_offset=-2.0
    )
    double = GridArchive.create(np.zeros(3), **GRID, dtype=jnp.float64)
    return {
        "grid": filled(annealed),
        "cvt": filled(voronoi),
        "double": filled(double),
        "empty": annealed,
    }


@pytest.mark.parametrize("kind", ["grid", "cvt", "double", "empty"])
def test_parquet_returns_the_same_archive(archives, kind, tmp_path):
    archive = archives[kind]
    archive.to_parquet(tmp_path / "archive.parquet")
    assert [x.name for x in tmp_path.iterdir()] == ["archive.parquet"]
    found = type(archive).from_parquet(tmp_path / "archive.parquet")
    assert_same(found, archive)


def test_any_reader_sees_plain_columns(archives, tmp_path):
    archives["grid"].to_parquet(tmp_path / "archive.parquet")
    table = pq.read_table(tmp_path / "archive.parquet")
    names = ["cell", "objective", "threshold", "measure_0", "measure_1", "latent"]
    assert table.column_names == names
    assert len(table) == archives["grid"].num_elites
    assert len(table["latent"][0]) == 3


def test_a_frame_returns_the_same_archive(archives):
    archive = archives["grid"]
    frame = archive.to_frame()
    assert frame["cell"].tolist() == [elite.cell for elite in archive.elites()]
    settings = archive.settings()
    assert_same(GridArchive.from_frame(frame, **settings), archive)
    # In another order only the order of discovery differs, without thresholds only those.
    other = GridArchive.from_frame(frame[::-1].drop(columns="threshold"), **settings)
    kept = {"thresholds": archive.thresholds, "occupied_cells": archive.occupied_cells}
    assert_same(other.replace(**kept), archive)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.drop(columns="latent"), "give at least one row of cell"),
        (lambda f: f[:0], "the frame has 0 rows"),
        (lambda f: f.assign(objective=np.nan), "row 0 has a number that is not finite"),
        (lambda f: f.assign(latent=[np.full(3, 3.4e38)] * len(f)), "not finite in bfloat16"),
        (lambda f: f.assign(threshold=np.nan), "row 0 has the threshold nan"),
        (lambda f: f.assign(threshold=-0.1), "row 0 has the threshold -0.1.*threshold_min 0.0"),
        (lambda f: f.assign(threshold=f["objective"] + 9), "row 0 has the threshold"),
        (lambda f: f.rename(columns={"measure_1": "measure_2"}), "give at least one row of cell"),
        (lambda f: f.assign(cell=f["cell"] + 1), "row 0 says cell"),
        (lambda f: pd.concat([f, f]), "a cell appears twice"),
        (lambda f: f.drop(columns="measure_1"), "1 measures but the archive 2"),
    ],
)
def test_frames_that_do_not_fit_are_refused(archives, spoil, message):
    with pytest.raises(ValueError, match=message):
        GridArchive.from_frame(spoil(archives["grid"].to_frame()), **archives["grid"].settings())


def test_files_that_do_not_fit_are_refused(archives, tmp_path):
    archives["cvt"].to_parquet(tmp_path / "cvt.parquet")
    with pytest.raises(ValueError, match="holds a CVTArchive"):
        GridArchive.from_parquet(tmp_path / "cvt.parquet")
    archives["grid"].to_frame().drop(columns="latent").to_parquet(tmp_path / "frame.parquet")
    with pytest.raises(ValueError, match="not an archive"):
        GridArchive.from_parquet(tmp_path / "frame.parquet")
    (tmp_path / "text.parquet").write_text("not Parquet")
    with pytest.raises(ValueError, match="not an archive"):
        GridArchive.from_parquet(tmp_path / "text.parquet")


def test_extra_scores_have_no_place_in_a_table(archives):
    archive = GridArchive.create(np.zeros(3), **GRID, extra_scores={"kept": np.float32(0)})
    with pytest.raises(ValueError, match=r"extra scores \('kept',\).*archive.replace"):
        archive.to_frame()
    with pytest.raises(ValueError, match=r"extra scores \('kept',\)"):
        GridArchive.from_frame(archives["grid"].to_frame(), **archive.settings())
    archive.replace(extra_scores={}, keys_extra_scores=()).to_frame()


def test_a_tree_of_latents_has_no_place_in_a_table():
    archive = GridArchive.create({"a": np.zeros(2), "b": np.zeros(1)}, **GRID)
    with pytest.raises(ValueError, match="only latents"):
        archive.to_frame()


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
