"""Files of the repository that pages link to, such as examples, go along with the pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_LINK = re.compile(r"(?<=\]\()(?P<target>\.\./[\w./-]+\.(?:py|toml))(?=\))")
_FOLDER = "repository"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what the pages link to outside the documentation's folder."""
    for file in files.documentation_pages():
        for link in _LINK.finditer(file.content_string):
            source = _outside(file.src_uri, link["target"], config)
            if source is not None and files.get_file_from_path(_place(source, config)) is None:
                content = source.read_text(encoding="utf-8")
                files.append(File.generated(config, _place(source, config), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Let links to such files lead to the copies."""
    uri = page.file.src_uri

    def lead(link: re.Match[str]) -> str:
        source = _outside(uri, link["target"], config)
        if source is None:
            return link["target"]
        return "../" * uri.count("/") + _place(source, config)

    return _LINK.sub(lead, markdown)


def _outside(uri: str, target: str, config: MkDocsConfig) -> Path | None:
    """The file of the repository that a page's link names, unless it is a part of the pages."""
    path = (Path(config.docs_dir) / uri).parent.joinpath(target).resolve()
    inside = path.is_relative_to(Path(config.docs_dir).resolve())
    return path if path.is_file() and not inside else None


def _place(source: Path, config: MkDocsConfig) -> str:
    root = Path(config.config_file_path).resolve().parent
    return f"{_FOLDER}/{source.relative_to(root).as_posix()}"
