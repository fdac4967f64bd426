"""The report in a browser: cells answer, nothing is loaded, nothing sticks out, dark is dark."""

import dataclasses
import re
from pathlib import Path

import made_up_run as made_up
import pytest

from qdgs_jax.report.atlas import atlases
from qdgs_jax.report.page import render

CHROMIUM = Path("/usr/bin/chromium")

pytestmark = pytest.mark.skipif(not CHROMIUM.is_file(), reason="needs Debian's chromium")
playwright = pytest.importorskip("playwright.sync_api")

OVERFLOW = """() => [...document.querySelectorAll("body, body *")].filter((element) => {
    const boxed = element.parentElement.closest(".table, pre, .hidden, .patterns");
    if (boxed) return false;
    const box = element.getBoundingClientRect();
    return box.width > 0 && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map((element) => element.outerHTML.slice(0, 120))"""
CONTRAST = """() => {
    const light = (text) => {
        const [r, g, b] = text.match(/[\\d.]+/g).map((value) => {
            const v = value / 255;
            return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const colour = getComputedStyle(each).backgroundColor;
            if (!/, 0\\)$/.test(colour)) return colour;
        }
    };
    const kinds = "h1,h2,h3,p,th,td,dt,dd,a,.what,.value,.beside,text,summary,pre,figcaption,li";
    const seen = (element) => element.getClientRects().length && element.textContent.trim();
    return [...document.querySelectorAll(kinds)].filter(seen).map((element) => {
        const style = getComputedStyle(element);
        const front = light(element.closest("svg") ? style.fill : style.color);
        const back = light(behind(element));
        const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
        return [ratio, element.textContent.trim().slice(0, 40)];
    }).sort((a, b) => a[0] - b[0])[0];
}"""

COLLISIONS = """() => [...document.querySelectorAll("svg[viewBox]")].flatMap((picture) => {
    const texts = [...picture.querySelectorAll("text")].filter((text) => text.textContent.trim());
    const boxes = texts.map((text) => text.getBoundingClientRect());
    return texts.flatMap((text, i) => texts.slice(i + 1).filter((_, k) => {
        const a = boxes[i], b = boxes[i + 1 + k];
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const tall = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        return wide > 1 && tall > Math.min(a.height, b.height) / 2;
    }).map((other) => `${text.textContent} / ${other.textContent}`));
})"""

CUT_OFF = """() => [...document.querySelectorAll("svg[viewBox]")].flatMap((picture) => {
    const frame = picture.getBoundingClientRect();
    return [...picture.querySelectorAll("text")].filter((text) => {
        const box = text.getBoundingClientRect();
        return box.left < frame.left - 1 || box.right > frame.right + 1;
    }).map((text) => text.textContent);
})"""
LETTERS = """() => [...document.querySelectorAll("svg[viewBox] text")].map(
    (text) => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a
)"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    page = tmp_path_factory.mktemp("report") / "index.html"
    page.write_text(render(made_up.run(cells=12)), encoding="utf-8")
    return page.as_uri()


@pytest.fixture
def opened(browser, address):
    """Open the page with some settings; complaints of the page fail the test."""
    contexts, complaints, asked, own = [], [], [], ["data:", address]

    def start(width=1300, scheme="light", *, scripts=True, at=address):
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            java_script_enabled=scripts,
        )
        contexts.append(context)
        own.append(at)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(at)
        return page

    yield start
    for context in contexts:
        context.close()
    assert complaints == []
    outside = [url for url in asked if not url.startswith(tuple(own))]
    assert outside == []


def figures(panel):
    """Names and values of a panel."""
    names = panel.locator("dt").all_inner_texts()
    values = [" ".join(text.split()) for text in panel.locator("dd").all_inner_texts()]
    return dict(zip(names, values, strict=True))


def expected(arm, cell):
    """What a panel says of a cell."""
    row = arm.elites.cells.tolist().index(cell)
    wanted = {"objective": f"{arm.elites.objectives[row]:.4g}"}
    for name, value, at in zip(
        ("colour", "shape"), arm.elites.measures[row], divmod(cell, 12), strict=True
    ):
        wanted[name] = f"{value:.4g} cell {at + 1} of 12".replace("-", "−")
    return wanted


def click_cell(page, board, column, line):
    """Click into the middle of a place of a board of 12 by 12; lines count from the bottom."""
    hit = page.locator(".board").nth(board).locator(".hit")
    hit.scroll_into_view_if_needed()
    box = hit.bounding_box()
    page.mouse.click(
        box["x"] + (column + 0.5) / 12 * box["width"],
        box["y"] + (11.5 - line) / 12 * box["height"],
    )


@pytest.mark.parametrize(("board", "width"), [(0, 1300), (2, 390)])
def test_a_click_on_a_cell_shows_its_image_and_figures(opened, board, width):
    page = opened(width)
    panel = page.locator("#inspector")
    assert not panel.is_visible()
    click_cell(page, board, 4, 7)
    assert "cma_maega, cell 55" in panel.inner_text()
    assert figures(panel) == expected(made_up.run().arms[0], 4 * 12 + 7)
    tile = panel.locator(".tile").evaluate(
        "(tile) => [getComputedStyle(tile).backgroundImage.slice(0, 20), tile.style.cssText]"
    )
    assert tile[0] == 'url("data:image/webp'
    assert tile[1] == "--x: 7; --y: 4;"  # the archive is full: tile 55 of 12 in a line


def test_a_cell_without_a_picture_says_so(opened):
    page = opened()
    arm = made_up.run().arms[1]
    cell = int(arm.elites.cells[5])
    click_cell(page, 1, *divmod(cell, 12))
    panel = page.locator("#inspector")
    assert f"random, cell {cell}" in panel.inner_text()
    assert "no image kept" in panel.inner_text()
    assert figures(panel) == expected(arm, cell)


def test_keys_move_between_elites_and_escape_closes(opened):
    page = opened()
    panel = page.locator("#inspector")
    page.locator(".board").nth(0).focus()
    page.keyboard.press("Enter")
    assert panel.is_visible()
    click_cell(page, 0, 4, 7)
    for key, cell in (("ArrowRight", 67), ("ArrowUp", 68), ("ArrowLeft", 56), ("ArrowDown", 55)):
        page.keyboard.press(key)
        assert f"cell {cell}" in panel.locator("b").inner_text()
    panel.get_by_label("next elite, up").click()
    panel.get_by_label("next elite, up").click()
    assert "cell 57" in panel.locator("b").inner_text()
    page.keyboard.press("Escape")
    assert not panel.is_visible()
    assert page.evaluate("document.activeElement.matches('.board')")
    assert page.locator(".board[tabindex='0'][role='application'][aria-label]").count() == 3


def test_the_panel_never_covers_the_cell_that_it_tells_of(opened):
    page = opened(390)
    click_cell(page, 0, 6, 0)
    panel = page.locator("#inspector").bounding_box()
    cursor = page.locator(".cursor[visibility=visible]").bounding_box()
    assert cursor["y"] + cursor["height"] <= panel["y"]


def test_without_scripts_cells_are_links_to_their_figures(opened, address):
    page = opened(scripts=False)
    links = page.locator(".board").nth(0).locator("a")
    assert links.count() == 144
    assert page.locator(".panel:visible").count() == 0
    page.locator(".board").nth(0).locator("a[href='#e0-55']").click()
    (panel,) = page.locator(".panel:visible").all()
    assert figures(panel) == expected(made_up.run().arms[0], 55)
    assert panel.locator(".tile").is_visible()
    panel.get_by_label("close").click()
    assert page.locator(".panel:visible").count() == 0
    again = opened(at=f"{address}#e0-55")  # the same address with scripts
    assert figures(again.locator("#inspector")) == expected(made_up.run().arms[0], 55)


@pytest.mark.parametrize(("width", "scheme"), [(1300, "light"), (390, "dark")])
def test_nothing_sticks_out_and_every_text_can_be_read(opened, width, scheme):
    page = opened(width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(OVERFLOW) == []
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    paper = [int(value) for value in re.findall(r"\d+", colour)]
    assert (max(paper) < 60) if scheme == "dark" else (min(paper) > 200)
    ratio, text = page.evaluate(CONTRAST)
    assert ratio >= 4.5, text


@pytest.mark.parametrize("width", [1300, 390])
@pytest.mark.parametrize("times", [1, 1000])
def test_no_text_of_a_picture_lies_over_another(opened, tmp_path, width, times):
    data = made_up.run(4, 5)
    said = {"low_text": "A person with dark skin.", "high_text": "A person with light skin."}
    axes = tuple(dataclasses.replace(each, **said) for each in data.measures)
    bars = made_up.section().bars[0]
    people = dataclasses.replace(bars, groups=("androgynous × young", "masculine", "dark", "light"))
    sections = (dataclasses.replace(data.sections[0], bars=[people]),)
    data = dataclasses.replace(data, measures=axes, sections=sections)
    arms = tuple(dataclasses.replace(a, qd_scores=times * a.qd_scores) for a in data.arms)
    page = tmp_path / "index.html"
    page.write_text(render(dataclasses.replace(data, arms=arms)), encoding="utf-8")
    shown = opened(width, at=page.as_uri())
    assert shown.evaluate(COLLISIONS) == []
    assert shown.evaluate(CUT_OFF) == []


def test_a_narrow_atlas_does_not_grow_into_large_letters(opened, tmp_path):
    axes = made_up.measures(2)
    axes = (dataclasses.replace(axes[0], cells=2), dataclasses.replace(axes[1], cells=12))
    data = made_up.run()
    arm = made_up.arm("cma_maega", 0.06, axes, 0)
    own = made_up.pictures(arm, axes)
    shown = atlases(arm.elites, [m.cells for m in axes], own)
    arms = (dataclasses.replace(arm, pictures=own), made_up.arm("random", 0.02, axes, 1))
    page = tmp_path / "index.html"
    data = dataclasses.replace(data, measures=axes, arms=arms, atlases=shown)
    page.write_text(render(data), encoding="utf-8")
    assert max(opened(1300, at=page.as_uri()).evaluate(LETTERS)) < 20


@pytest.mark.parametrize(("width", "shown"), [(1300, [False, True]), (390, [True, False])])
def test_bins_stand_below_their_class_where_a_table_is_narrow(opened, width, shown):
    page = opened(width)
    row = page.locator("table.balance tr.group").first
    below = row.locator("th").evaluate("(th) => getComputedStyle(th, '::after').content")
    assert [below == '"a red shape"', row.locator("td.text").is_visible()] == shown
    assert row.locator("th").bounding_box()["width"] > 120


def test_a_table_that_is_too_wide_scrolls_in_its_box_and_can_be_reached(opened):
    page = opened(390)
    page.evaluate(
        "document.querySelector('.balance tbody th').textContent = 'unbreakable'.repeat(9)"
    )
    table = page.locator(".table").first
    assert table.evaluate("(box) => box.scrollWidth > box.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    table.evaluate("(box) => { box.onscroll = () => { box.scrolled = box.scrollLeft > 0; }; }")
    table.focus()
    page.keyboard.press("ArrowRight")
    playwright.expect(table).to_have_js_property("scrolled", True)
