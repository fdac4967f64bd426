"""What a report gathers from a run folder: files that are there, at addresses that lead there."""

import dataclasses
import json
from urllib.parse import unquote, urljoin, urlparse

from qdgs_jax.report.collect import links, made_with
from qdgs_jax.runs.folder import RunFolder
from qdgs_jax.runs.provenance import Stint


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


STINT = Stint(
    versions={"jax": "1", "python": "3.11"},
    platform="Linux",
    backend="cpu",
    device="cpu",
    device_count=1,
    seed=0,
    command=("qdgs", "search"),
    started="2026-01-01",
    wall_seconds=10.0,
)


def keep(folder, *stints):
    folder.path.mkdir(parents=True)
    rows = [dataclasses.asdict(stint) for stint in stints]
    content = {"format": "qdgs-provenance", "version": 1, "stints": rows}
    (folder.path / "provenance.json").write_text(json.dumps(content))


def test_all_machines_that_searched_are_shown(tmp_path):
    folder = RunFolder(tmp_path / "run")
    gpu = dataclasses.replace(STINT, device="H100", device_count=4, finished="2026-01-02")
    keep(folder, STINT, gpu, gpu)
    keep(folder.baseline, dataclasses.replace(STINT, versions={"jax": "2", "python": "3.11"}))
    made = made_with(folder, {"run": "cma_mae", "baseline": "random"})
    assert made["device"] == "1 x cpu, then 4 x H100"
    assert made["jax"] == "1"
    assert (made["jax of random"], made["device of random"]) == ("2", "1 x cpu")
    assert "python of random" not in made
    assert (made["seconds"], made["finished"]) == ("30", "2026-01-02")
    assert made_with(RunFolder(tmp_path / "none"), {}) == {}
