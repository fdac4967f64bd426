"""The report of a run: one HTML file that needs nothing but a browser.

`page.render` is a pure function of `contents.ReportData`; `collect` fills that from a run folder.
"""

from __future__ import annotations

from pathlib import Path


def build_report(run_dir: str | Path) -> Path:
    """Write `report/index.html` of a run folder and return its path.

    Args:
        run_dir: a run folder whose search is finished.

    Raises:
        ValueError: the folder holds no finished run.
    """
    from qdgs_jax.files import sweep, write_atomically
    from qdgs_jax.report.collect import collect
    from qdgs_jax.report.page import render

    page = render(collect(Path(run_dir)))
    target = Path(run_dir) / "report" / "index.html"
    target.parent.mkdir(exist_ok=True)
    sweep(target.parent, r"index\.html")
    write_atomically(target, page.encode(errors="replace"))
    return target
