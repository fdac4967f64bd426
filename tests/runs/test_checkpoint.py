"""Checkpoints of any state: rows of occupied cells in, the whole archive out, to the bit."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qdgs_jax.archive import CVTArchive, GridArchive
from qdgs_jax.runs import array_file, host_copy, host_pool
from qdgs_jax.runs.checkpoint import (
    DamagedCheckpointError,
    read_about,
    restore_state,
    save_state,
    take_snapshot,
)
from qdgs_jax.runs.checkpoint_writer import CheckpointWriter
from qdgs_jax.runs.host_pool import HostPool

DIM = 700
SETTINGS = {"learning_rate": 0.02, "threshold_min": 0.5}


def grid(cells=(30, 30), dim=DIM, **settings):
    return GridArchive.create(
        np.zeros(dim, np.float32), dims=cells, ranges=((0.0, 1.0),) * 2, **settings
    )


def with_scores():
    return grid(**SETTINGS, extra_scores={"age": np.zeros((2,), np.int32)})


def cvt():
    centroids = np.random.default_rng(0).random((50, 2))
    return CVTArchive.create(
        np.zeros(DIM, np.float32), centroids=centroids, ranges=((0.0, 1.0),) * 2
    )


@jax.jit
def add(archive, *candidates):
    return archive.add(*candidates)


def fill(archive, seed=0, count=64):
    """Offer some random candidates."""
    rng = np.random.default_rng(seed)
    dim = archive.genotypes.shape[1]
    scores = {"age": rng.integers(0, 9, (count, 2)).astype(np.int32)}
    return add(
        archive,
        rng.standard_normal((count, dim)).astype(np.float32),
        rng.random((count, 2)).astype(np.float32),
        rng.random(count).astype(np.float32),
        {name: scores[name] for name in archive.keys_extra_scores},
    )


def assert_same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_array_equal(
            np.asarray(a).reshape(-1).view(np.uint8), np.asarray(b).reshape(-1).view(np.uint8)
        )


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(lambda: fill(grid(**SETTINGS)), id="annealed"),
        pytest.param(lambda: fill(grid()), id="from minus infinity"),
        pytest.param(lambda: grid(**SETTINGS), id="empty"),
        pytest.param(lambda: fill(grid((2, 2))), id="full"),
        pytest.param(lambda: grid((1, 1)), id="one empty cell"),
        pytest.param(lambda: fill(grid((1, 1))), id="one full cell"),
        pytest.param(lambda: fill(grid(dtype=jnp.bfloat16, **SETTINGS)), id="bfloat16"),
        pytest.param(lambda: fill(with_scores()), id="extra scores"),
        pytest.param(lambda: fill(cvt()), id="CVT"),
    ],
)
@pytest.mark.parametrize("gathers", [False, True], ids=["views", "gathers"])
def test_an_archive_comes_back_to_the_bit(archive, gathers, tmp_path, monkeypatch):
    if gathers:  # as on accelerators
        monkeypatch.setattr(host_copy, "_shared", lambda leaf: None)
    state = {"a": archive(), "b": jnp.arange(3, dtype=jnp.bfloat16), "c": jnp.float32(-0.0)}
    save_state(tmp_path / "one", state)
    assert_same_bits(restore_state(tmp_path / "one", jax.eval_shape(lambda: state)), state)


def test_only_rows_of_occupied_cells_are_written(tmp_path):
    archive = fill(grid((300, 300)))
    save_state(tmp_path / "one", archive)
    written = sum(file.stat().st_size for file in (tmp_path / "one").rglob("*") if file.is_file())
    per_cell = sum(x.nbytes for x in (archive.centroids, archive.occupied_cells))
    assert written < 64 * 4 * (DIM + 5) + per_cell + 8000
    assert archive.genotypes.nbytes > 20 * written


def test_a_checkpoint_says_what_it_is_of(tmp_path):
    save_state(tmp_path / "one", {"x": jnp.ones(2)}, {"run": "grüße"})
    assert read_about(tmp_path / "one") == {"run": "grüße"}


def test_the_state_can_be_donated_in_place_after_a_snapshot():
    step = jax.jit(
        lambda archive: archive.replace(genotypes=archive.genotypes + 1), donate_argnums=0
    )
    archive = step(fill(grid()))
    before = archive.genotypes.unsafe_buffer_pointer()
    snapshot = take_snapshot(archive)
    kept = [piece.copy() for piece in snapshot.columns[".genotypes"].pieces]
    archive = step(archive)
    assert archive.genotypes.unsafe_buffer_pointer() == before
    for piece, copy in zip(snapshot.columns[".genotypes"].pieces, kept, strict=True):
        np.testing.assert_array_equal(piece, copy)


def test_nothing_is_compiled_anew_for_another_number_of_elites(tmp_path, monkeypatch):
    monkeypatch.setattr(host_copy, "_shared", lambda leaf: None)
    counts = []
    archive = grid()
    for number in range(3):
        archive = fill(archive, number)
        save_state(tmp_path / str(number), archive)
        restore_state(tmp_path / str(number), jax.eval_shape(lambda a=archive: a))
        counts.append((host_copy._gather._cache_size(), host_copy._scatter._cache_size()))
    assert counts[0] == counts[1] == counts[2]


def test_rows_come_in_several_pieces(tmp_path, monkeypatch):
    piece = 2**21
    monkeypatch.setattr(array_file, "PIECE", piece)
    monkeypatch.setattr(host_pool, "PIECE", piece)
    dim = piece // 4 // 10  # ten rows a piece
    archive = fill(grid((6, 6), dim), count=30)
    pool = HostPool()
    pool.prepare(2 * piece)
    snapshot = take_snapshot(archive, pool)
    assert len(snapshot.columns[".genotypes"].pieces) == -(-int(archive.num_elites) // 10)
    snapshot.write(tmp_path / "one")
    snapshot.give_back(pool)
    assert_same_bits(restore_state(tmp_path / "one", jax.eval_shape(lambda: archive)), archive)
    again = take_snapshot(archive, pool)  # into the same memory
    again.write(tmp_path / "two")
    assert pool.nbytes == 2 * piece
    first, second = (
        [file.read_bytes() for file in sorted((tmp_path / name / "arrays").iterdir())]
        for name in ("one", "two")
    )
    assert first == second


@pytest.mark.parametrize("file", ["index.json", "arrays/000.npy", "arrays/001.npy"])
def test_any_damage_is_found(file, tmp_path):
    state = {"a": jnp.arange(30), "b": jnp.ones((4, 5))}
    save_state(tmp_path / "one", state)
    path = tmp_path / "one" / file
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        try:
            restored = restore_state(tmp_path / "one", state)
        except (DamagedCheckpointError, ValueError):
            continue
        assert_same_bits(restored, state)  # a byte without a meaning, such as white space
    for length in (0, 10, len(whole) - 1):
        path.write_bytes(whole[:length])
        if length < len(whole) - 1 or file != "index.json":
            with pytest.raises(DamagedCheckpointError):
                restore_state(tmp_path / "one", state)


def test_nothing_is_left_of_a_checkpoint_that_fails(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qdgs_jax.runs.checkpoint.write_array", full)
    with pytest.raises(OSError, match="No space left"):
        save_state(tmp_path / "one", {"a": jnp.ones(2)})
    assert not list(tmp_path.iterdir())


def test_a_slow_disk_has_checkpoints_less_often(tmp_path):
    def slow():
        time.sleep(0.05)

    writer = CheckpointWriter(tmp_path, 0.01, {}, slow)
    assert writer.interval == 0.01
    writer.finish(3, {"archive": fill(grid())})
    assert 20 * 0.05 <= writer.interval < 20 * 5
