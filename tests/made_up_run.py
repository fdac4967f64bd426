"""A made-up run for the report's tests: no search, no weights, the same every time."""

import dataclasses

import numpy as np

from qdgs_jax.datasets.balance import Balance, Group
from qdgs_jax.datasets.selection import Labelled
from qdgs_jax.elites import Elites
from qdgs_jax.experiments.protocol import Bars, Card, Lines, Section, Series, Table
from qdgs_jax.report.atlas import atlases
from qdgs_jax.report.contents import Arm, Link, MeasureAxis, ReportData

FILES = (
    Link("archive.parquet", "../archive.parquet", 51_200),
    Link("metrics.csv", "../metrics.csv", 900),
    Link("data/shard-00000.parquet", "../data/shard-00000.parquet", 70_000),
)
GROUPS = ("red triangle", "red square", "blue triangle", "blue square")


def measures(count=2, cells=12):
    """Measure axes with names that need escaping in HTML."""
    texts = [("a red shape", "a blue shape"), ("a triangle with 3 edges", "a <square> & more")]
    texts += [("dark", "light"), ("young", "old")]
    names = ("colour", "shape", "tone", "age")
    return tuple(MeasureAxis(names[i], -0.1, 0.1, cells, *texts[i]) for i in range(count))


def elites(cells, objectives, points=None):
    """Elites with these cells and objectives."""
    cells = np.asarray(cells, int)
    return Elites(
        cells=cells,
        objectives=np.asarray(objectives, float),
        thresholds=np.zeros(len(cells)),
        measures=np.zeros((len(cells), 2)) if points is None else points,
        latents=np.zeros((len(cells), 1)),
    )


def bare(cells, objectives, name="cma_maega"):
    """An arm with an archive and nothing else."""
    none = np.zeros(0)
    return Arm(name, elites(cells, objectives), none, none, none)


def data_set(points):
    """A data set with these measures, labelled by the second."""
    rows = elites(np.zeros(len(points)), np.zeros(len(points)), np.asarray(points))
    return Labelled(rows, (rows.measures[:, 1] >= 0).astype(int))


def pictures(arm, axes):
    """A square per elite, red to the left and blue to the right."""
    made = {}
    for cell in arm.elites.cells:
        column = np.unravel_index(cell, [m.cells for m in axes])[0] / axes[0].cells
        made[int(cell)] = np.full((40, 40, 3), 255, np.uint8)
        made[int(cell)][10:30, 10:30] = (255 * (1 - column), 0, 255 * column)
    return made


def arm(name, spread, axes, seed):
    """An arm whose archive and images lie within `spread` of the middle."""
    rng = np.random.default_rng(seed)
    points = np.clip(rng.normal(0.0, spread, (1500, len(axes))), -0.0999, 0.0999)
    dims = [m.cells for m in axes]
    at = [
        ((points[:, i] - m.low) / (m.high - m.low) * m.cells).astype(int)
        for i, m in enumerate(axes)
    ]
    cells, first = np.unique(np.ravel_multi_index(at, dims), return_index=True)
    steps = np.arange(1, 26)
    end = len(cells) / np.prod(dims)
    objectives = 60 + 10 * rng.random(len(cells))
    short = 40 * seed
    return Arm(
        name=name,
        elites=elites(cells, objectives, points[first]),
        evaluations=800 * steps,
        qd_scores=65 * len(cells) * np.sqrt(steps / 25),
        coverages=end * np.sqrt(steps / 25),
        seconds=81.4,
        data=data_set(points[:1000]),
        balance=Balance(
            1000,
            (
                Group("triangle", "a red shape", 250, 250 + short),
                Group("triangle", "a blue shape", 250, 250 - short),
                Group("<square>", "a red shape", 250, 250 - short),
                Group("<square>", "a blue shape", 250, 250 + short),
            ),
        ),
        notes=("no image is labelled '<circle>'.",) if seed else (),
    )


def section():
    """What an experiment has to show."""
    names = ("no repair", "random", "cma_maega")
    roles = ("none", "baseline", "run")
    means = np.array([[0.62, 0.90, 0.955], [0.71, 0.91, 0.96], [0.83, 0.93, 0.97]])
    rows = [
        [f"{bias}", *(f"{100 * m:.1f} ± 1.2" for m in row), f"{100 * (row[2] - row[0]):+.1f}"]
        for bias, row in zip((0.98, 0.9, 0.8), means, strict=True)
    ]
    return Section(
        title="Repaired classifiers",
        words="How accurate <they> are.",
        cards=[Card("Balanced accuracy at bias 0.98", "95.5 %", "before: 62.0 %")],
        tables=[Table("Accuracy", ["bias", *names, "gain"], rows)],
        lines=[
            Lines(
                "",
                "colour bias",
                "balanced accuracy",
                (0.8, 0.9, 0.98),
                [
                    Series(name, role, means[::-1, i].tolist(), [0.012] * 3)
                    for i, (name, role) in enumerate(zip(names, roles, strict=True))
                ],
            )
        ],
        bars=[
            Bars(
                "Groups",
                GROUPS,
                [
                    Series("cma_maega", "run", [0.3, 0.2, 0.25, 0.25]),
                    Series("random", "baseline", [0.5, 0.1, 0.1, 0.3]),
                ],
                "Judged by an oracle.",
            )
        ],
    )


def run(count=2, cells=12):
    """A whole report's worth of data over `count` measures."""
    axes = measures(count, cells)
    arms = (arm("cma_maega", 0.06, axes, 0), arm("random", 0.02, axes, 1))
    own = pictures(arms[0], axes)
    arms = (dataclasses.replace(arms[0], pictures=own, files=FILES), arms[1])
    return ReportData(
        name="made <up>",
        measures=axes,
        arms=arms,
        run_file='name = "made <up>"\n[search]\nalgorithm = "cma_maega"\n',
        provenance={"qdgs-jax": "0.1.0", "jax": "0.10.2", "device": "1 x <chip>"},
        atlases=atlases(arms[0].elites, [m.cells for m in axes], own),
        sections=(section(),),
    )
