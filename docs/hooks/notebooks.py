"""Tutorials for MkDocs: each notebook becomes a page, and stays beside it as a file to download.

A link to a notebook leads to its page, so that the same link works in a repository's browser.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_LINK = re.compile(r"(\]\([\w./-]+)\.ipynb(?=[#)])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every notebook."""
    for file in list(files):
        if file.src_uri.endswith(".ipynb") and file.abs_src_path:
            notebook = json.loads(Path(file.abs_src_path).read_text(encoding="utf-8"))
            uri = file.src_uri.removesuffix(".ipynb") + ".md"
            content = page(notebook, Path(file.src_uri).name)
            files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to notebooks lead to their pages."""
    return _LINK.sub(r"\1.md", markdown)


def page(notebook: dict[str, Any], name: str) -> str:
    """Markdown of a notebook, its title first, with a link to the notebook below it."""
    title, *rest = map(_cell, notebook["cells"])
    heading, _, text = title.partition("\n")
    download = f'<a href="{name}" download>Download this page as a notebook</a>'
    return "\n\n".join([heading, download, text.strip(), *rest]) + "\n"


def _cell(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    lines = source.splitlines()
    if all(line.startswith("!") for line in lines):
        return _fence("sh", "\n".join(line[1:] for line in lines))
    if lines[0].startswith("%%writefile "):
        name = lines[0].removeprefix("%%writefile ")
        return _fence(f'python title="{name}"', "\n".join(lines[1:]))
    return _fence("python", source)


def _fence(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"
