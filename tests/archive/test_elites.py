"""Elites as columns: gathered on the device, chunk by chunk, and files of earlier versions."""

import base64
import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qdgs_jax.archive import CVTArchive, GridArchive, exchange
from qdgs_jax.elites import Elites

GRID = {"dims": (5, 4), "ranges": ((-1, 1), (-1, 1)), "learning_rate": 0.1, "threshold_min": 0.0}


@pytest.fixture(scope="module")
def archive():
    empty = GridArchive.create(np.zeros(3, np.float32), **GRID, dtype=jnp.bfloat16)
    rng = np.random.default_rng(0)
    for _ in range(3):
        batch = rng.normal(size=(6, 3)), rng.uniform(-1, 1, (6, 2)), rng.uniform(0, 1, 6)
        empty = empty.add(*(jnp.asarray(x, jnp.float32) for x in batch))
    return empty


def test_chunks_leave_no_trace(archive, monkeypatch):
    whole = archive.elites()
    assert len(whole) == archive.num_elites > 6
    monkeypatch.setattr(exchange, "_CHUNK_NUMBERS", 4 * 3)  # four rows at a time
    assert_same_rows(archive.elites(), whole)
    again = GridArchive.from_elites(whole)
    jax.tree.map(np.testing.assert_array_equal, again, archive)


def test_what_is_printed_is_a_line(archive):
    assert repr(archive) == "GridArchive(dims=(5, 4), ranges=((-1.0, 1.0), (-1.0, 1.0)))"
    elites = archive.elites()
    assert repr(elites) == f"Elites({len(elites)} elites, 2 measures, latents of 3 numbers)"
    centroids = np.random.default_rng(1).uniform(-1, 1, (7, 2))
    voronoi = CVTArchive.create(np.zeros(3), centroids=centroids, ranges=GRID["ranges"])
    assert repr(voronoi) == "CVTArchive(7 cells, ranges=((-1.0, 1.0), (-1.0, 1.0)))"


def test_rows_are_those_of_the_cells(archive):
    elites = archive.elites()
    assert elites.cells.tolist() == archive.occupied_cells[: len(elites)].tolist()
    np.testing.assert_array_equal(elites.objectives, archive.fitnesses[elites.cells, 0])
    np.testing.assert_array_equal(elites.latents, archive.latents[elites.cells])
    assert [elite.cell for elite in elites] == elites.cells.tolist()
    assert archive.best_elite.objective == archive.best == archive.stats["best"]
    assert elites.settings["kind"] == "GridArchive"


def test_an_empty_archive_has_no_elites(archive):
    empty = GridArchive.create(np.zeros(3, np.float32), **GRID)
    elites = empty.elites()
    assert (len(elites), elites.latents.shape, empty.best_elite) == (0, (0, 3), None)


def test_a_part_makes_an_archive_of_its_own(archive):
    elites = archive.elites()
    order = np.argsort(elites.objectives)[:-3:-1]
    best = elites.take(order)
    part = GridArchive.from_elites(best)
    assert part.num_elites == len(best) == 2
    assert part.best == archive.best
    assert elites.take(elites.objectives > 2).cells.size == 0


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"'measures': \(2, 2\)"):
        Elites(np.arange(3), np.zeros(3), np.zeros(3), np.zeros((2, 2)), np.zeros((3, 4)))


def test_files_of_earlier_versions_are_read(tmp_path):
    """Written column by column from pandas, with int32 cells and the settings as JSON."""
    centroids = np.float32([[0.25, 0.5], [0.75, 0.5]])
    settings = {
        "kind": "CVTArchive",
        "latent_dim": 2,
        "centroids": {
            "shape": centroids.shape,
            "float32": base64.b64encode(zlib.compress(centroids.tobytes())).decode(),
        },
        "ranges": [[0.0, 1.0], [0.0, 1.0]],
        "learning_rate": 1.0,
        "threshold_min": -np.inf,
        "qd_score_offset": 0.0,
        "dtype": "float32",
    }
    latents = pa.FixedSizeListArray.from_arrays(pa.array(np.float32([1, 2, 3, 4])), 2)
    table = pa.table(
        {
            "cell": np.int32([1, 0]),
            "objective": np.float32([5, 6]),
            "threshold": np.float32([5, 6]),
            "measure_0": np.float32([0.7, 0.2]),
            "measure_1": np.float32([0.5, 0.5]),
            "latent": latents,
        }
    ).replace_schema_metadata({b"qdgs_archive": json.dumps(settings)})
    pq.write_table(table, tmp_path / "old.parquet", compression="zstd")
    found = CVTArchive.from_parquet(tmp_path / "old.parquet")
    assert found.genotypes.tolist() == [[3, 4], [1, 2]]
    assert found.occupied_cells.tolist() == [1, 0]
    np.testing.assert_array_equal(found.centroids, centroids)
    found.to_parquet(tmp_path / "new.parquet")
    assert pq.read_table(tmp_path / "new.parquet").equals(table)


def assert_same_rows(one, other):
    for name in ("cells", "objectives", "thresholds", "measures", "latents"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
