"""The report's page: whole without a network, honest about its data, safe with any text."""

import base64
import dataclasses
import hashlib
import html
import io
import re
from html.parser import HTMLParser

import made_up_run as made_up
import numpy as np
import pytest
from PIL import Image

from qdgs_jax.datasets.balance import Balance, Group
from qdgs_jax.datasets.thumbnails import SIDE
from qdgs_jax.experiments.protocol import Bars, Series, Table
from qdgs_jax.report import charts, svg
from qdgs_jax.report.atlas import atlases, sheet, sprite
from qdgs_jax.report.boards import inspect, numbers, panels
from qdgs_jax.report.colours import viridis
from qdgs_jax.report.contents import ReportData
from qdgs_jax.report.page import render
from qdgs_jax.report.verdict import answer

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


def test_tables_of_a_section_have_titles_and_groups_of_columns():
    wide = Table(
        "Shares", ["data set", "a", "b", "c"], [["x-1", "-0.5", "2", "3"]], [("", 1), ("<s>", 3)]
    )
    section = dataclasses.replace(made_up.section(), tables=[wide, made_up.section().tables[0]])
    parsed = outline(dataclasses.replace(made_up.run(), sections=(section,)))
    spans = [
        attrs.get("colspan") for tag, attrs in parsed.tags if tag == "th" and "colspan" in attrs
    ]
    assert spans == ["1", "3"]
    for text in ("Shares", "Accuracy", "<s>", "x-1", f"{svg.MINUS}0.5"):
        assert text in parsed.text
    assert wide.full_header == ["data set", "<s>\na", "<s>\nb", "<s>\nc"]


@pytest.fixture(scope="module")
def page():
    return outline(made_up.run())


def images_of(markup):
    for content in re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", markup):
        yield Image.open(io.BytesIO(base64.b64decode(content)))


def inspected(arm, axes, pair=(0, 1)):
    (shown,) = inspect(ReportData("", axes, (arm,), "", {}), [pair])
    return shown


def test_the_page_needs_nothing_from_outside(page):
    outside = [link for link in page.links if not link.startswith(("data:image/png;base64,", "#"))]
    assert outside == [link.address for link in made_up.FILES]
    text = render(made_up.run())
    assert not re.search(r"<(link|iframe)|@import|url\((?!data:|#)|https?:|src=", text)


def test_a_browser_may_run_the_pages_one_script_and_load_nothing():
    text = render(made_up.run())
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert f"script-src 'sha256-{digest}'" in html.unescape(policy)
    assert "default-src 'none'; img-src data:;" in html.unescape(policy)


def test_the_page_has_every_section_and_its_figures(page):
    text = " ".join(page.text)
    for words in (
        "What the scales mean",
        "archive.parquet",
        "Archives",
        "Atlas of elites",
        "Balance",
        "Search",
        "Are the data balanced now?",
        "Repaired classifiers",
        "Run file",
        "Made with",
        "95.5",
        "+33.5",
        "0.10.2",
        "blue triangle",
    ):
        assert words in text


def test_every_picture_tells_what_it_shows(page):
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    told = [each for each in pictures if each.get("class") != "patterns"]
    # 2 heat maps and the atlas answer; scatter, 3 histograms, 2 curves, lines, groups do not.
    assert [each["role"] for each in told] == ["group"] * 3 + ["img"] * 8
    assert all(each["aria-label"] for each in told)


def test_texts_of_the_run_file_cannot_become_markup(page):
    invented = {"up", "square", "they", "circle", "chip"}
    assert not [tag for tag, _ in page.tags if tag in invented]
    for text in ("made <up>", "How accurate <they> are.", "labelled '<circle>'", "1 x <chip>"):
        assert text in " ".join(page.text)


def test_a_bare_run_makes_a_page_too():
    data = made_up.run()
    arm = dataclasses.replace(data.arms[0], data=None, balance=None)
    bare = outline(dataclasses.replace(data, arms=(arm,), atlases=(), sections=(), provenance={}))
    text = " ".join(bare.text)
    assert "elites of the archives" in text
    assert "There is no data set yet:" in text
    assert "No images were kept of this run:" in text
    assert "The run did not keep what it was made with." in text
    assert "classifiers" not in text.lower()


def test_an_empty_archive_makes_a_page_too():
    data = made_up.run()
    arm = made_up.bare([], [], "random")
    assert outline(dataclasses.replace(data, arms=(arm,), atlases=(), sections=()))


def test_only_this_runs_own_names_are_shown():
    """Neither the package nor the report knows what the run was about."""
    data = made_up.run()
    text = render(dataclasses.replace(data, sections=()))
    assert not re.search(r"oracle|classifier|Random sampling|>QDGS<", text)
    assert "cma_maega searched the generator" in text


def test_the_page_says_whether_the_data_are_balanced(page):
    text = " ".join(" ".join(page.text).split())
    assert "Yes: every class has its share in every bin." in text
    assert "cma_maega: smallest to largest group 1.00" in text
    assert "random: smallest to largest group 0.72" in text
    assert "triangle all 500 500 500" in text
    assert "triangle a red shape 250 250 290" in text
    assert "<square> a red shape 250 250 210" in text
    assert "(short)" not in text  # nothing is asked of the baseline
    assert text.index("Are the data balanced now?") < text.index("QD-score")


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((100, 100), "Yes: every class has its share in every bin."),
        ((100, 130), "Not quite: every group has what was asked, but some have more."),
        ((96, 104), "Nearly: 1 of 2 groups is short, most of all b (x) with 96 of 100."),
        ((20, 50), "No: 2 of 2 groups are short, most of all b (x) with 20 of 100."),
    ],
)
def test_the_answer_depends_on_the_groups(counts, words):
    groups = (Group("a", "x", 100, counts[1]), Group("b", "x", 100, counts[0]))
    assert answer(Balance(200, groups)) == words


def test_many_groups_are_folded_away():
    data = made_up.run()
    many = Balance(1000, tuple(Group("a", f"bin {i}", 10, 10) for i in range(50)))
    page = outline(
        dataclasses.replace(data, arms=(dataclasses.replace(data.arms[0], balance=many),))
    )
    assert "All 50 classes and bins" in " ".join(page.text)
    assert " ".join(page.text).count("bin 49") == 1


def test_short_groups_are_counted_and_marked():
    data = made_up.run()
    swapped = outline(dataclasses.replace(data, arms=data.arms[::-1], atlases=()))
    assert "No: 2 of 4 groups are short, most of all triangle (a blue shape)" in " ".join(
        swapped.text
    )
    marked = [a for tag, a in swapped.tags if tag == "td" and a.get("class") == "short"]
    assert len(marked) == 2


def test_with_more_measures_there_is_a_heat_map_per_pair():
    data = outline(made_up.run(count=3, cells=5))
    titles = [a.get("aria-label", "") for tag, a in data.tags if tag == "svg"]
    assert sum(title.startswith("Archive of cma_maega") for title in titles) == 3
    assert sum(title.startswith("Images of the archive's elites") for title in titles) == 3
    text = " ".join(data.text)
    assert "cma_maega: colour and tone" in text
    assert re.search(
        r"25 of 25 cells over shape and tone hold an elite; the archive has \d+ elites in 125 cells"
        " over 3 measures",
        text,
    )


def test_a_heat_map_has_each_elite_in_its_place_and_leaves_the_rest_clear():
    axes = made_up.measures(cells=4)
    cells = np.array([0, 3, 4 * 2 + 1])  # (colour, shape) = (0, 0), (0, 3), (2, 1)
    arm = made_up.bare(cells, [0.0, 1.0, 0.5])
    (image,) = images_of(charts.heat_map(inspected(arm, axes), axes, (0, 1), (0.0, 1.0)))
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
    arm = made_up.bare([0, 1, 7], [1.0, 5.0, 2.0])
    grid = charts.best_per_cell(arm, axes, (0, 1))
    np.testing.assert_array_equal(grid, [[5.0, np.nan], [np.nan, 2.0]])
    assert charts.filled_places(arm, axes, (0, 1)).startswith("2 of 4 cells over")
    assert charts.filled_places(arm, axes, (1, 2)).startswith("3 of 4 cells over")
    assert charts.filled_places(arm, axes, (1, 2)).endswith("3 elites in 8 cells over 3 measures.")
    elsewhere = dataclasses.replace(arm, occupied=(5, 30))
    assert charts.filled_places(elsewhere, axes, (1, 2)).endswith(
        "5 elites in 30 cells over 3 measures."
    )


def test_elites_of_a_cvt_archive_go_by_the_number_of_its_cell():
    axes = made_up.measures(cells=4)
    arm = made_up.bare([2, 7], [1.0, 5.0])
    own = dataclasses.replace(arm, occupied=(2, 30), own_cells={2: 11, 7: 29})
    titles = {}
    for each in (arm, own):
        shown = inspected(each, axes)
        links = str(charts.heat_map(shown, axes, (0, 1), (1.0, 5.0)))
        (numbered,) = numbers([shown], axes)["arms"]
        panel = panels(shown, axes)[0]
        titles[each.own_cells is None] = (
            re.findall(r'aria-label="cell (\d+), objective', links),
            numbered["own"],
            panel["title"],
            panel["figures"][0][2],
        )
    assert titles[True] == (["2", "7"], [2, 7], "cma_maega, cell 2", "cell 1 of 4")
    assert titles[False] == (["11", "29"], [11, 29], "cma_maega, cell 11", "map cell 1 of 4")


def test_the_atlas_shows_each_elite_where_it_belongs():
    places = np.array([[0, 0], [19, 19]])
    images = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    images[0, ..., 0], images[1, ..., 2] = 255, 255
    pixels = sprite(images, places, (20, 20))
    assert pixels.shape == (20 * SIDE, 20 * SIDE, 4)
    assert pixels[-1, 0].tolist() == [255, 0, 0, 255]
    assert pixels[0, -1].tolist() == [0, 0, 255, 255]
    assert pixels[0, 0, 3] == 0


@pytest.mark.parametrize("size", [(20, 20), (20, 5), (3, 20), (1, 1)])
def test_places_of_an_atlas_are_square(size):
    axes = [dataclasses.replace(m, cells=n) for m, n in zip(made_up.measures(), size, strict=True)]
    arm = made_up.bare([0], [1.0])
    (picture,) = atlases(arm.elites, size, {0: np.zeros((SIDE, SIDE, 3), np.uint8)})
    markup = charts.atlas(picture, axes, inspected(arm, axes))
    (image,) = re.findall(r'<image[^>]*width="([\d.]+)" height="([\d.]+)"', markup)
    width, height = map(float, image)
    assert width / size[0] == pytest.approx(height / size[1], rel=2e-3)


def test_pictures_that_are_not_square_keep_their_proportions():
    pixels = sprite([np.full((SIDE, 20, 3), 7, np.uint8)], np.array([[0, 0]]), (1, 1))
    assert pixels[0, :, 3].tolist() == [0] * 10 + [255] * 20 + [0] * 10


def test_a_sheet_holds_each_picture_once_in_reading_order():
    colours = {cell: np.full((SIDE, SIDE, 3), 50 * i, np.uint8) for i, cell in enumerate((9, 4, 7))}
    packed = sheet(colours, [4, 7, 8, 9])
    assert (packed.columns, packed.rows, packed.tiles) == (2, 2, {4: 0, 7: 1, 9: 2})
    pixels = np.asarray(Image.open(io.BytesIO(packed.image)))
    middle = pixels[SIDE // 2 :: SIDE, SIDE // 2 :: SIDE]
    np.testing.assert_allclose(middle[..., 0].ravel()[:3], [50, 100, 0], atol=3)
    assert middle[..., 3].ravel().tolist() == [255, 255, 255, 0]
    assert sheet(colours, [8]) is None


def test_an_atlas_shows_only_elites_that_have_a_thumbnail():
    cells = made_up.elites([0, 3], [2.0, 1.0])
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    (made,) = atlases(cells, (2, 2), {3: picture})
    assert made.cells.tolist() == [3]
    assert atlases(cells, (2, 2), {}) == ()


def test_the_line_of_equal_shares_crosses_no_figure():
    series = [Series("run", "run", [0.2, 0.3, 0.5]), Series("b", "baseline", [0.9, 0.05, 0.05])]
    markup = charts.bars(Bars("Shares", ("a", "b", "c"), series), charts.series_styles(series))
    (line,) = map(float, re.findall(r'class="mark" d="M([\d.]+) ', markup))
    figures = re.findall(r'x="([\d.]+)"[^>]*text-anchor="end">[\d.]+.%', markup)
    assert len(figures) == 6
    assert all(float(x) - 7 * svg.LETTER > line for x in figures)  # seven letters end there


def test_references_have_colours_of_their_own_in_every_chart():
    shares = [0.4, 0.6]
    roles = {"mine": "run", "random": "baseline", "ffhq": "none", "celeba": "none"}
    series = [Series(name, role, shares) for name, role in roles.items()]
    charts_of = [
        Bars("skin", ("light", "dark"), series),
        Bars("age", ("young", "old"), [series[0], series[3]]),
    ]
    section = dataclasses.replace(made_up.section(), lines=[], bars=charts_of)
    text = render(dataclasses.replace(made_up.run(), sections=(section,)))
    drawn = re.findall(r'class="bar (\w+)"[^>]*><title>(\w+): ', text)
    assert set(drawn) == {("a", "mine"), ("b", "random"), ("none", "ffhq"), ("c", "celeba")}
    assert '<i class="c"></i>celeba' in text
    for name in charts.OTHER_STYLES:  # each has its colour, light and dark
        assert text.count(f"--{name}: #") == 2
        assert f".bar.{name} {{ fill: var(--{name}); }}" in text


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
        data=made_up.data_set(np.array([[-0.5, 0], [-0.1, 0], [0.3, 0], [0, 0]], np.float32)),
    )
    (points,) = re.findall(r'points="([^"]*)"', charts.histogram([data], axes, 0))
    x, y = np.array([point.split(",") for point in points.split()], float).T
    high, base = y.min(), y.max()
    assert (y[1], y[-2]) == (high, pytest.approx((high + base) / 2, abs=0.1))
    assert np.sum(y == high) == 2  # the first bin alone holds two of the four
    assert (x[0], x[-1]) == (x.min(), x.max())
