"""What a report gathers from a run folder: files that are there, at addresses that lead there."""

from urllib.parse import unquote, urljoin, urlparse

from qdgs_jax.report.collect import links
from qdgs_jax.runs.folder import RunFolder


def test_links_lead_from_the_page_to_the_files_that_are_there(tmp_path):
    folder = RunFolder(tmp_path / "a run #1")
    there = ["archive.parquet", "data/shard-00000.parquet", "data/README.md"]
    there += ["random/archive.parquet", "random/data/part 2%.parquet"]
    for name in there:
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / name).write_bytes(b"12345")
    found = links(folder, folder.path, ["shard-00000.parquet", "shard-00001.parquet"])
    found += links(folder.baseline, folder.path, ["part 2%.parquet"])
    assert [link.name for link in found] == there
    page = (folder.path / "report" / "index.html").as_uri()
    for link in found:
        target = unquote(urlparse(urljoin(page, link.address)).path)
        assert target == str(folder.path / link.name)
        assert link.size == 5
