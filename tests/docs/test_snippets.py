"""What the documentation shows works: Python, run files, command lines and links."""

import importlib.resources
import json
import re
import tomllib

import pytest
import tomli_w
from snippets import (
    PREAMBLES,
    ROOT,
    blocks,
    check_command,
    commands,
    inline_commands,
    pages,
    preamble_of,
    run_blocks,
)

from qdgs_jax.domains import registry
from qdgs_jax.runs.config import parse_run

PAGES = {str(path.relative_to(ROOT)): path for path in pages()}
BLOCKS = {name: blocks(path.read_text(encoding="utf-8"), name) for name, path in PAGES.items()}
WRITTEN_IN = {language: set() for language in ("python", "toml", "json")}
for _name, _blocks in BLOCKS.items():
    for _block in _blocks:
        WRITTEN_IN.setdefault(_block.language, set()).add(_name)


def in_pages_with(language):
    return pytest.mark.parametrize("page", sorted(WRITTEN_IN[language]))


def in_blocks_of(language):
    found = [b for each in BLOCKS.values() for b in each if b.language == language]
    return pytest.mark.parametrize("block", found, ids=lambda block: block.place)


@in_pages_with("python")
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "DOMAINS", dict(registry.DOMAINS))  # for preambles to add to
    preamble = preamble_of(PAGES[page])
    run_blocks(BLOCKS[page], preamble.read_text(encoding="utf-8") if preamble.exists() else "")


@in_blocks_of("toml")
def test_run_files_are_valid(block):
    if block.skipped:
        pytest.skip(block.skipped)
    table = tomllib.loads(block.text)
    whole = {"name", "domain", "objective", "measures"} <= table.keys()
    parse_run(block.text if whole else tomli_w.dumps(completed(table)), block.place)


@in_blocks_of("json")
def test_json_is_valid(block):
    json.loads(block.text)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_commands_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in BLOCKS[page]:
        for line in commands(block):
            words = line.split()
            if words[0] == "qdgs":
                check_command(line)
            elif words[0] == "make":
                assert words[1] in targets, f"{block.place}: no `make {words[1]}`"
            elif words[1].endswith(".py"):
                assert (ROOT / words[1]).is_file(), f"{block.place}: no {words[1]}"
    for line in inline_commands(PAGES[page].read_text(encoding="utf-8")):
        check_command(line, complete=False)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_lead_to_files(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", PAGES[page].read_text(encoding="utf-8"), flags=re.S)
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    files = [target for target in targets if "://" not in target and ":" not in target]
    missing = [file for file in files if not (PAGES[page].parent / file).exists()]
    assert not missing


def test_preambles_belong_to_pages():
    used = {preamble_of(PAGES[page]) for page in WRITTEN_IN["python"]}
    assert set(PREAMBLES.rglob("*.py")) <= used


def completed(table):
    """Make a run file of a part of one: what it does not say is the packaged run's.

    The packaged archive is left out with another algorithm, which brings its own, and a table with
    a `kind` stands for itself.
    """
    packaged = importlib.resources.files("qdgs_jax") / "assets" / "shapes.toml"
    run = tomllib.loads(packaged.read_text(encoding="utf-8"))
    if "search" in table:
        run.pop("archive", None)
    for name, value in table.items():
        merge = isinstance(value, dict) and "kind" not in value
        run[name] = {**run.get(name, {}), **value} if merge else value
    measures = run["measures"]
    if "dataset" not in table:
        run["dataset"].update(label=measures[-1]["name"], bins=[2] * len(measures))
    return run


def test_blocks_are_found_with_their_markers():
    text = (
        "```python\na = 1\n```\n\n<!-- snippet: new -->\n```python\nb\n```\n"
        "<!-- snippet: skip because\nit needs a GPU -->\n\n- item\n  ```toml\n  c = 3\n  ```\n"
        "<!-- snippet: skip because it needs a GPU -->\n\n```sh\n$ qdgs report X | cat\n```\n"
    )
    found = blocks(text, "page.md")
    assert [b.language for b in found] == ["python", "python", "toml", "sh"]
    assert [b.text for b in found[:3]] == ["a = 1", "b", "c = 3"]
    assert [b.line for b in found] == [2, 7, 14, 19]
    assert [b.new for b in found] == [False, True, False, False]
    assert [b.skipped for b in found] == ["", "", "", "it needs a GPU"]
    shell = blocks("```\n$ A=1 qdgs report X | cat && make test  # all\n```", "page.md")[0]
    assert list(commands(shell)) == ["qdgs report X", "make test  # all"]
    with pytest.raises(ValueError, match=r"page\.md:2: 'skip' is no marker"):
        blocks("<!-- snippet: skip -->\n```python\n```", "page.md")


def test_a_new_namespace_begins_with_the_preamble_and_nothing_else():
    first = blocks("```python\nb = a\n```\n```python\nassert b == 1\n```", "page.md")
    run_blocks(first, "a = 1")
    fresh = blocks("```python\nb = a\n```\n<!-- snippet: new -->\n```python\nb\n```", "page.md")
    with pytest.raises(NameError, match="'b'"):
        run_blocks(fresh, "a = 1")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("qdgs serch my.toml", "No such command 'serch'"),
        ("qdgs search my.toml --fast", "No such option: --fast"),
        ("qdgs search", "Missing argument"),
        ("qdgs port gan a b", "'gan' is not one of"),
        ("qdgs report a b", "unexpected extra argument"),
    ],
)
def test_commands_that_the_program_does_not_take_are_found(line, error):
    with pytest.raises(ValueError, match=error):
        check_command(line)


def test_commands_with_placeholders_and_options_are_taken():
    check_command("qdgs port KIND SOURCE DESTINATION [--dtype float32|bfloat16]  # a comment")
    check_command("qdgs search", complete=False)
