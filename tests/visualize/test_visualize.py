"""Pictures of archives show the objectives in their places."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt

from qdgs_jax import visualize
from qdgs_jax.archive import CVTArchive, GridArchive


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def filled(archive, descriptors, fitnesses):
    """The archive with these elites; written rather than added, so that nothing is compiled."""
    cells = np.asarray(archive.cell_of(jnp.asarray(descriptors)))
    scores, places = np.array(archive.fitnesses), np.array(archive.descriptors)
    scores[cells, 0], places[cells] = fitnesses, descriptors
    return archive.replace(fitnesses=jnp.asarray(scores), descriptors=jnp.asarray(places))


def test_a_grid_shows_each_objective_in_its_place(ax):
    grid = GridArchive.create(jnp.zeros(3), dims=(2, 3), ranges=((0, 2), (0, 3)))
    grid = filled(grid, [(0.5, 2.5), (1.5, 0.5)], [7.0, 3.0])
    visualize.grid_archive_heatmap(grid, ax, names=("size", "hue"))
    (mesh,) = ax.collections
    shown = mesh.get_array().reshape(3, 2)  # rows are measure 1, upwards
    assert shown[2, 0] == 7.0
    assert shown[0, 1] == 3.0
    assert shown.mask.sum() == 4
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("size", "hue")
    assert mesh.get_clim() == (3.0, 7.0)


def test_of_more_measures_the_best_along_the_others_is_shown(ax):
    grid = GridArchive.create(jnp.zeros(3), dims=(2, 2, 2), ranges=((0, 2),) * 3)
    grid = filled(grid, [(0.5, 0.5, 0.5), (0.5, 1.5, 0.5)], [1.0, 5.0])
    visualize.grid_archive_heatmap(grid, ax, measures=(2, 0), colorbar=False)
    shown = ax.collections[0].get_array().reshape(2, 2)
    assert shown[0, 0] == 5.0
    assert shown.mask.sum() == 3


def test_voronoi_cells_hold_their_centroids_and_fill_the_box(ax):
    centroids = jax.random.uniform(jax.random.key(0), (12, 2)) * jnp.asarray([4.0, 1.0])
    cvt = CVTArchive.create(jnp.zeros(3), centroids=centroids, ranges=((0, 4), (0, 1)))
    cvt = filled(cvt, centroids[:5], jnp.arange(5.0))
    visualize.cvt_archive_heatmap(cvt, ax)
    (polygons,) = ax.collections
    paths = polygons.get_paths()
    assert all(
        path.contains_point(point) for path, point in zip(paths, np.asarray(centroids), strict=True)
    )
    area = sum(
        0.5 * abs(np.sum(x * np.roll(y, 1) - y * np.roll(x, 1)))
        for x, y in (path.to_polygons()[0][:-1].T for path in paths)
    )
    assert area == pytest.approx(4.0)
    assert polygons.get_array().compressed().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_parallel_axes_draw_a_line_per_elite_the_best_last(ax):
    grid = GridArchive.create(jnp.zeros(3), dims=(4, 4, 4), ranges=((0, 4),) * 3)
    grid = filled(grid, [(0.0, 2.0, 4.0), (1.5, 1.5, 1.5)], [9.0, 2.0])
    visualize.parallel_axes_plot(grid, ax)
    lines = next(c for c in ax.collections if len(c.get_segments()) == 2)
    assert lines.get_array().tolist() == [2.0, 9.0]
    np.testing.assert_allclose(lines.get_segments()[1], [(0, 0), (1, 0.5), (2, 1)])


@pytest.fixture
def run():
    """What stands in for a finished run: an archive, and what its run file says of measures."""
    grid = GridArchive.create(jnp.zeros(3), dims=(2, 2), ranges=((0, 1), (-1, 1)))
    sides = (("colour", "a red shape", "a blue shape"), ("shape", "a triangle", "a square " * 9))
    measures = [
        SimpleNamespace(name=name, positive=(low,), negative=(high,)) for name, low, high in sides
    ]
    return SimpleNamespace(archive=grid, config=SimpleNamespace(measures=measures))


def test_a_run_names_its_measures_and_their_ends(run, ax):
    visualize.grid_archive_heatmap(run, ax, transpose_measures=True)
    assert ax.get_ylabel() == "colour\na red shape → a blue shape"
    assert ax.get_xlabel() == "shape\na triangle → a square a square a …"
    visualize.grid_archive_heatmap(run.archive, ax, ends=(("red", "blue"), ("3", "4")))
    assert ax.get_xlabel() == "measure 0\nred → blue"


@pytest.mark.parametrize("draw", [visualize.grid_archive_heatmap, visualize.parallel_axes_plot])
def test_texts_lie_inside_a_figure_that_was_given_no_axes(run, draw):
    plt.close("all")
    drawn = draw(run)
    drawn.figure.canvas.draw()
    texts = [drawn.xaxis.label, drawn.yaxis.label, *drawn.get_xticklabels()]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    whole = drawn.figure.bbox
    assert all(whole.x0 <= box.x0 and whole.y0 <= box.y0 and box.x1 <= whole.x1 for box in boxes)
    plt.close("all")


def test_texts_of_parallel_axes_lie_apart(run, ax):
    visualize.parallel_axes_plot(run, ax, colorbar=False)
    ax.set_title("a title")
    ax.figure.canvas.draw()
    above = ax.child_axes[0]
    texts = [*ax.get_xticklabels(), *above.get_xticklabels(), ax.title]
    shown = [text.get_text() for text in texts]
    assert shown[:2] == ["0\na red shape\ncolour", "-1\na triangle\nshape"]
    assert shown[2:4] == ["a blue shape\n1", "a square a square a …\n1"]
    boxes = [text.get_window_extent() for text in texts]
    inside = ax.get_window_extent()
    assert not any(box.overlaps(inside) for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_measures_are_exchanged_and_scales_given(ax):
    grid = GridArchive.create(jnp.zeros(3), dims=(2, 3), ranges=((0, 2), (0, 3)))
    grid = grid.replace(fitnesses=grid.fitnesses.at[2].set(7.0))  # measure 0 low, measure 1 high
    visualize.grid_archive_heatmap(grid, ax, transpose_measures=True, vmin=-1, vmax=9)
    (mesh,) = ax.collections
    assert mesh.get_array().reshape(2, 3)[0, 2] == 7.0
    assert ax.get_xlabel() == "measure 1"
    assert mesh.get_clim() == (-1, 9)


def test_voronoi_cells_are_exchanged(ax):
    centroids = np.float32([(1, 0.5), (3, 0.25), (2, 0.75), (0.5, 0.1)])
    cvt = CVTArchive.create(jnp.zeros(3), centroids=centroids, ranges=((0, 4), (0, 1)))
    visualize.cvt_archive_heatmap(cvt, ax, transpose_measures=True)
    (polygons,) = ax.collections
    for path, point in zip(polygons.get_paths(), centroids, strict=True):
        assert path.contains_point(point[::-1])
    assert ax.get_xlim() == (0, 1) and ax.get_ylabel() == "measure 0"


@pytest.mark.parametrize(
    ("draw", "error"),
    [
        (lambda grid: visualize.cvt_archive_heatmap(grid), "give a CVTArchive"),
        (
            lambda grid: visualize.grid_archive_heatmap(grid, measures=(0, 2)),
            r"measures is \(0, 2\)",
        ),
        (lambda grid: visualize.grid_archive_heatmap(grid, names=("one",)), "1 names for 2"),
        (lambda grid: visualize.grid_archive_heatmap(grid, ends=("ab", "cd")), "ends is"),
        (lambda grid: visualize.parallel_axes_plot(grid, ends=(("a", "b"),)), "each of 2 measures"),
        (lambda grid: visualize.grid_archive_heatmap(grid, [1]), "ax is a list: give one"),
        (lambda grid: visualize.grid_archive_heatmap("runs/my"), "archive is 'runs/my'.*load_run"),
        (lambda grid: visualize.parallel_axes_plot(None), "archive is of type NoneType"),
    ],
)
def test_wrong_use_is_told(draw, error):
    grid = GridArchive.create(jnp.zeros(3), dims=(2, 2), ranges=((0, 2),) * 2)
    with pytest.raises((TypeError, ValueError), match=error):
        draw(grid)
    plt.close("all")


def test_an_empty_archive_can_be_drawn(ax):
    grid = GridArchive.create(jnp.zeros(3), dims=(2, 2), ranges=((0, 2),) * 2)
    visualize.grid_archive_heatmap(grid, ax)
    assert ax.collections[0].get_array().mask.all()
