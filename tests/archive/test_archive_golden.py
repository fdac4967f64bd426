"""The grid archive against recorded insertions of pyribs, in both of its views."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qdgs_jax.archive import AddInfo, GridArchive

DATA = Path(__file__).parents[1] / "data" / "archive"
RUNS = ["mapelites", "cmamae_lr001", "cmamae_lr002", "cmamae_lr050", "4d_cmamae_lr002"]


@dataclasses.dataclass
class Replay:
    golden: dict[str, np.ndarray]
    archives: list[GridArchive]
    infos: list[AddInfo]

    def stored(self, batch: int) -> dict[str, np.ndarray]:
        """Rows that pyribs holds after a batch, with their cells."""
        names = ("objective", "measures", "solution", "threshold_f64")
        if "state_index" in self.golden:
            rows = slice(*self.golden["state_offset"][batch : batch + 2])
            cells = self.golden["state_index"][rows]
            return {"cell": cells, **{n: self.golden[f"state_{n}"][rows] for n in names}}
        (cells,) = np.nonzero(self.golden["occupied"][batch])
        return {"cell": cells, **{n: self.golden[n][batch][cells] for n in names}}


@pytest.fixture(scope="module", params=RUNS)
def replay(request):
    file = "grid4d_cmamae_lr002" if request.param.startswith("4d") else f"grid_{request.param}"
    with np.load(DATA / f"{file}.npz") as data:
        golden = dict(data)
    archive = GridArchive.create(
        np.zeros(golden["in_solution"].shape[-1], np.float32),
        dims=golden["dims"],
        ranges=np.stack([golden["lower"], golden["upper"]], axis=1),
        learning_rate=float(golden["learning_rate"]),
        threshold_min=float(golden["threshold_min"]),
        qd_score_offset=float(golden["qd_score_offset"]),
    )
    add = jax.jit(lambda archive, *batch: archive.add_with_info(*batch))
    result = Replay(golden, [], [])
    for batch in zip(
        golden["in_solution"], golden["in_measures"], golden["in_objective"], strict=True
    ):
        archive, info = add(archive, *batch)
        result.archives.append(jax.device_get(archive))
        result.infos.append(jax.device_get(info))
    return result


def test_every_candidate_is_judged_alike(replay):
    for batch, info in enumerate(replay.infos):
        np.testing.assert_array_equal(info.cell, replay.golden["in_index"][batch])
        np.testing.assert_array_equal(info.status, replay.golden["out_status"][batch])
        np.testing.assert_allclose(info.value, replay.golden["out_value_f64"][batch], 0, 1e-5)


def test_thresholds_move_alike(replay):
    for batch, archive in enumerate(replay.archives):
        stored = replay.stored(batch)
        wanted = np.full(archive.num_cells, replay.golden["threshold_min"])
        wanted[stored["cell"]] = stored["threshold_f64"]
        np.testing.assert_allclose(archive.thresholds, wanted, 0, 1e-5)


def test_elites_are_the_best_ever_offered(replay):
    """The passive view, against one candidate after another."""
    best = {}
    for batch, archive in enumerate(replay.archives):
        for row, (cell, objective) in enumerate(
            zip(replay.golden["in_index"][batch], replay.golden["in_objective"][batch], strict=True)
        ):
            if cell not in best or objective > best[cell][0]:
                best[cell] = objective, batch, row
        cells = sorted(best)
        np.testing.assert_array_equal(np.flatnonzero(np.asarray(archive.occupied)), cells)
        for field, name in (("genotypes", "in_solution"), ("descriptors", "in_measures")):
            wanted = [replay.golden[name][best[cell][1:]] for cell in cells]
            np.testing.assert_array_equal(np.asarray(getattr(archive, field))[cells], wanted)
        fitnesses = np.asarray(archive.fitnesses)
        np.testing.assert_array_equal(fitnesses[cells, 0], [best[c][0] for c in cells])


def test_acceptance_tells_which_rows_pyribs_stores(replay):
    """The annealed view: pyribs stores the best accepted candidate of the last batch."""
    view = {}
    for batch, info in enumerate(replay.infos):
        objective = replay.golden["in_objective"][batch]
        accepted = [row for row in range(len(objective)) if info.status[row] > 0]
        # Sorted by objective, then last to first, so that the first of the best is written last.
        for row in sorted(accepted, key=lambda row: (objective[row], -row)):
            view[info.cell[row]] = batch, row
        stored = replay.stored(batch)
        np.testing.assert_array_equal(sorted(view), stored["cell"])
        for name in ("objective", "measures", "solution"):
            wanted = [replay.golden[f"in_{name}"][view[cell]] for cell in stored["cell"]]
            np.testing.assert_array_equal(wanted, stored[name])


def test_statistics(replay):
    """Of the rows that pyribs holds, which are ours where the two views agree."""
    for batch, archive in enumerate(replay.archives):
        stored = replay.stored(batch)
        if replay.golden["threshold_min"] > -np.inf:
            fitnesses = np.full_like(archive.fitnesses, -np.inf)
            fitnesses[stored["cell"], 0] = stored["objective"]
            listed = np.zeros_like(archive.occupied_cells)
            listed[-1] = ~len(stored["cell"])
            view = archive.replace(fitnesses=fitnesses, occupied_cells=listed)
        else:
            view = archive
        found = [view.num_elites, view.coverage, view.qd_score, view.norm_qd_score, view.mean]
        wanted = dict(
            zip(replay.golden["stats_names"], replay.golden["stats_f64"][batch], strict=True)
        )
        best = wanted.pop("obj_max")
        np.testing.assert_allclose(found, list(wanted.values()), 1e-5)
        assert archive.best == best


@pytest.fixture(scope="module")
def boundaries():
    with np.load(DATA / "grid_boundaries.npz") as data:
        return dict(data)


@pytest.mark.parametrize("case", ["sq20", "u10", "odd7", "q50", "q25", "q5", "lp100", "third3"])
def test_cells_around_boundaries(boundaries, case):
    measures, index, dims, low, high = (
        boundaries[f"{case}_{name}"] for name in ("measures", "index_f32", "dims", "lower", "upper")
    )
    archive = GridArchive.create(np.zeros(1), dims=(dims,), ranges=((low, high),))
    found = np.asarray(jax.jit(archive.cell_of)(measures[:, None]))
    position = (measures.astype(np.float64) - low) * dims / (high - low)
    # Closer to a boundary than this, float32 arithmetic cannot follow the reference's float64. The
    # reference adds 1e-6 before it divides by the range, so its boundaries lie that much lower.
    shifted = position + 1e-6 / (high - low)
    close = np.abs(shifted - np.round(shifted)) < 1e-5
    np.testing.assert_array_equal(found[~close], index[~close])
    assert np.abs(found - index)[close].max() <= 1
    assert (~close).sum() > 10


def test_the_last_measure_varies_fastest(boundaries):
    dims = boundaries["ravel_dims"]
    archive = GridArchive.create(np.zeros(1), dims=dims, ranges=((0, 1),) * 3)
    found = archive.cell_of(jnp.asarray(boundaries["ravel_measures"]))
    np.testing.assert_array_equal(found, boundaries["ravel_index"])
    # QDax's emitters look cells up by the nearest centroid.
    np.testing.assert_array_equal(archive.cell_of(archive.centroids), np.arange(60))
