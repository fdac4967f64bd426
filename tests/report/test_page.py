"""The report's page: whole without a network, honest about its data, safe with any text."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser

import made_up_run as made_up
import numpy as np
import pytest
from PIL import Image

from qdgs_jax.report import charts, svg
from qdgs_jax.report.atlas import TILE, choose, sprite
from qdgs_jax.report.colours import viridis
from qdgs_jax.report.contents import Arm
from qdgs_jax.report.page import render

VOID = {"meta", "path", "rect", "image", "polyline", "br"}


class Outline(HTMLParser):
    """Checks that tags close in order, and collects text, tags and attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.tags, self.links = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.links += [value for name, value in attrs if name in {"href", "src"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def outline(data):
    parser = Outline()
    parser.feed(render(data))
    parser.close()
    assert parser.open == []
    return parser


@pytest.fixture(scope="module")
def page():
    return outline(made_up.run())


def images_of(markup):
    for content in re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", markup):
        yield Image.open(io.BytesIO(base64.b64decode(content)))


def test_the_page_needs_nothing_from_outside(page):
    assert page.links
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    text = render(made_up.run())
    assert not re.search(r"<(link|script|iframe)|@import|url\(|https?:", text)


def test_the_page_has_every_section_and_its_figures(page):
    text = " ".join(page.text)
    for words in (
        "Archives",
        "Atlas of elites",
        "Balance",
        "Search",
        "Classifiers",
        "Run file",
        "Versions",
        "95.5",
        "+33.5",
        "0.10.2",
        "blue triangle",
    ):
        assert words in text


def test_every_picture_tells_what_it_shows(page):
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(pictures) == 10  # 2 heat maps, atlas, scatter, 2 histograms, groups, 2 curves, lines
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in pictures)


def test_texts_of_the_run_file_cannot_become_markup(page):
    assert not [tag for tag, _ in page.tags if tag in {"up", "square"}]
    assert "made <up>" in " ".join(page.text)


def test_a_bare_run_makes_a_page_too():
    data = made_up.run()
    arm = dataclasses.replace(data.arms[0], dataset_measures=None, shares=None)
    bare = outline(dataclasses.replace(data, arms=(arm,), atlases=(), accuracy=None))
    assert "elites of the archives" in " ".join(bare.text)
    assert "Classifiers" not in " ".join(bare.text)


def test_an_empty_archive_makes_a_page_too():
    data = made_up.run()
    none = np.zeros(0)
    arm = Arm("QDGS", "random", none.astype(int), none, none, none, none)
    assert outline(dataclasses.replace(data, arms=(arm,), atlases=(), accuracy=None))


def test_with_more_measures_there_is_a_heat_map_per_pair():
    data = outline(made_up.run(count=3, cells=5))
    titles = [a["aria-label"] for tag, a in data.tags if tag == "svg"]
    assert sum(title.startswith("Archive of QDGS") for title in titles) == 3


def test_a_heat_map_has_each_elite_in_its_place_and_leaves_the_rest_clear():
    axes = made_up.measures(cells=4)
    none = np.zeros(0)
    cells = np.array([0, 3, 4 * 2 + 1])  # (colour, shape) = (0, 0), (0, 3), (2, 1)
    arm = Arm("QDGS", "random", cells, np.array([0.0, 1.0, 0.5]), none, none, none)
    (image,) = images_of(charts.heat_map(arm, axes, (0, 1), (0.0, 1.0)))
    pixels = np.asarray(image)
    assert pixels.shape == (4, 4, 4)
    filled = {(3, 0): (68, 1, 84), (0, 0): (253, 231, 37), (2, 2): (33, 145, 140)}
    for row in range(4):
        for column in range(4):
            if (row, column) in filled:
                assert tuple(pixels[row, column]) == (*filled[row, column], 255)
            else:
                assert pixels[row, column, 3] == 0


def test_over_a_pair_of_measures_a_cell_shows_the_best_along_the_others():
    axes = made_up.measures(count=3, cells=2)
    none = np.zeros(0)
    arm = Arm("a", "random", np.array([0, 1, 7]), np.array([1.0, 5.0, 2.0]), none, none, none)
    grid = charts.best_per_cell(arm, axes, (0, 1))
    np.testing.assert_array_equal(grid, [[5.0, np.nan], [np.nan, 2.0]])


def test_the_atlas_shows_the_best_elite_of_each_place_where_it_belongs():
    cells = np.array([0, 1, 40 * 39 + 39])  # the first two share a place of 20 x 20
    rows, places, size = choose(cells, np.array([1.0, 2.0, 0.5]), (40, 40), (0, 1))
    assert size == (20, 20)
    assert rows.tolist() == [1, 2]
    assert places.tolist() == [[0, 0], [19, 19]]
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[0, ..., 0], images[1, ..., 2] = 255, 255
    pixels = np.asarray(Image.open(io.BytesIO(sprite(images, places, size, (0, 1)).sprite)))
    assert pixels.shape == (20 * TILE, 20 * TILE, 4)
    assert pixels[-1, 0].tolist() == [255, 0, 0, 255]
    assert pixels[0, -1].tolist() == [0, 0, 255, 255]
    assert pixels[0, 0, 3] == 0


def test_viridis_runs_evenly_from_dark_to_bright():
    colours = viridis(np.linspace(0, 1, 50)).astype(float)
    brightness = colours @ [0.2126, 0.7152, 0.0722]
    steps = np.diff(brightness)
    assert steps.min() > 0
    assert steps.max() < 4 * steps.mean()
    np.testing.assert_array_equal(viridis(np.array([-1.0, 2.0])), viridis(np.array([0.0, 1.0])))


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (-0.1, 0.1, [-0.1, -0.05, 0.0, 0.05, 0.1]),
        (0.0, 20_000.0, [0, 5000, 10_000, 15_000, 20_000]),
        (0.79, 0.99, [0.8, 0.85, 0.9, 0.95]),
        (3.0, 3.0, [3.0]),
    ],
)
def test_ticks_are_round_numbers_inside_the_axis(low, high, wanted):
    assert svg.ticks(low, high, 4) == pytest.approx(wanted)


def test_a_histogram_counts_images_beyond_the_range_at_its_edges():
    axes = made_up.measures()
    data = dataclasses.replace(
        made_up.run().arms[0],
        dataset_measures=np.array([[-0.5, 0.0], [-0.1, 0.0], [0.3, 0.0], [0.0, 0.0]], np.float32),
    )
    (points,) = re.findall(r'points="([^"]*)"', charts.histogram([data], axes, 0))
    x, y = np.array([point.split(",") for point in points.split()], float).T
    high, base = y.min(), y.max()
    assert (y[1], y[-2]) == (high, pytest.approx((high + base) / 2, abs=0.1))
    assert np.sum(y == high) == 2  # the first bin alone holds two of the four
    assert (x[0], x[-1]) == (x.min(), x.max())


@pytest.mark.parametrize(
    ("ends", "shown"),
    [
        (("a red shape", "a blue shape"), ("← a red shape", "a blue shape →")),
        (("short", "long " * 12), ("← short", "long long long long long long long long… →")),
        (("long " * 12, "long " * 12), ("← long long long long lo…", "long long long long lo… →")),
    ],
)
def test_the_ends_of_an_axis_share_its_room(ends, shown):
    plot = svg.Plot(svg.Axis(0.0, 1.0, "x", ends), svg.Axis(0.0, 1.0, "y"))
    names = re.findall(r'class="name"[^>]*>([^<]*)<', plot.axes())
    assert tuple(names[:2]) == shown


def test_points_beyond_an_axis_stay_in_the_frame():
    plot = svg.Plot(svg.Axis(0.0, 1.0, "x"), svg.Axis(0.0, 1.0, "y"))
    assert plot.px(-5.0) == plot.left
    assert plot.py(9.0) == plot.top
