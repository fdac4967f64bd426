"""A made-up run for the report's tests: no search, no weights, the same every time."""

import numpy as np

from qdgs_jax.report.atlas import choose, sprite
from qdgs_jax.report.contents import Accuracy, Arm, MeasureAxis, ReportData

GROUPS = ("red triangle", "red square", "blue triangle", "blue square")


def measures(count=2, cells=12):
    """Measure axes with names that need escaping in HTML."""
    texts = [("a red shape", "a blue shape"), ("a triangle with 3 edges", "a <square> & more")]
    texts += [("dark", "light"), ("young", "old")]
    names = ("colour", "shape", "tone", "age")
    return tuple(MeasureAxis(names[i], -0.1, 0.1, cells, *texts[i]) for i in range(count))


def arm(name, spread, axes, seed):
    """An arm whose archive and images lie within `spread` of the middle."""
    rng = np.random.default_rng(seed)
    points = np.clip(rng.normal(0.0, spread, (1500, len(axes))), -0.0999, 0.0999)
    dims = [m.cells for m in axes]
    at = [
        ((points[:, i] - m.low) / (m.high - m.low) * m.cells).astype(int)
        for i, m in enumerate(axes)
    ]
    cells = np.unique(np.ravel_multi_index(at, dims))
    steps = np.arange(1, 26)
    end = len(cells) / np.prod(dims)
    return Arm(
        name=name,
        algorithm="cma_maega" if seed == 0 else "random",
        cells=cells,
        objectives=60 + 10 * rng.random(len(cells)),
        evaluations=800 * steps,
        qd_scores=65 * len(cells) * np.sqrt(steps / 25),
        coverages=end * np.sqrt(steps / 25),
        seconds=81.4,
        dataset_measures=points[:1000],
        shares=dict(zip(GROUPS, rng.dirichlet(np.full(4, 100 * spread)), strict=True)),
    )


def run(count=2, cells=12):
    """A whole report's worth of data over `count` measures."""
    axes = measures(count, cells)
    arms = (arm("QDGS", 0.06, axes, 0), arm("Random sampling", 0.02, axes, 1))
    rows, places, size = choose(arms[0].cells, arms[0].objectives, [m.cells for m in axes], (0, 1))
    colours = np.stack([1 - places[:, 0] / size[0], 0 * rows, places[:, 0] / size[0]], axis=-1)
    images = np.full((len(rows), 16, 16, 3), 255, np.uint8)
    images[:, 4:12, 4:12] = (255 * colours[:, None, None]).astype(np.uint8)
    means = np.array([[0.62, 0.90, 0.955], [0.71, 0.91, 0.96], [0.83, 0.93, 0.97]])
    accuracy = Accuracy(
        biases=(0.98, 0.9, 0.8),
        arms=("No repair", "Random sampling", "QDGS"),
        mean=means,
        standard_error=np.full((3, 3), 0.012),
        seeds=5,
    )
    return ReportData(
        name="made <up>",
        measures=axes,
        arms=arms,
        run_file='name = "made <up>"\n[search]\nalgorithm = "cma_maega"\n',
        versions={"qdgs-jax": "0.1.0", "jax": "0.10.2"},
        atlases=(sprite(images, places, size, (0, 1)),),
        accuracy=accuracy,
    )
