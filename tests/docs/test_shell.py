"""Blocks of shell in the documentation are run, line by line, with small things under big names.

The toy domain stands in for generator and CLIP, budgets are cut, and checkpoints and sets of faces
have a few tensors and pictures. Blocks that nothing small can stand in for are named in `NOT_RUN`
with the reason; that their commands and options exist is checked in `test_snippets.py`.
"""

import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import checkpoint_formats as formats
import face_files
import numpy as np
import pytest
import tomli_w
import torch_writer as tw
from snippets import ROOT, blocks, pages
from synthetic import DATA, load_manifest
from toy_runs import EVALUATIONS, play, qdgs, write_run

from qdgs_jax.datasets.audit import read_audit
from qdgs_jax.datasets.manifest import read_manifest
from qdgs_jax.domains.zero_shot import Seen
from qdgs_jax.experiments import audit as audits
from qdgs_jax.experiments import shapes_repair
from qdgs_jax.ports import load_config
from qdgs_jax.ports.registry import PORTED
from qdgs_jax.runs.folder import RunFolder
from qdgs_jax.train import load_classifier
from qdgs_jax.train.shapes import oracle, repair
from qdgs_jax.train.shapes.repair_result import RepairResult

SHELL = [
    block
    for path in pages()
    for block in blocks(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    if block.language in ("", "sh", "bash", "console")
]
PAPER = "full-size networks, and hours; tests/cli/test_faces.py goes the way with small ones"
OWN = "compiles the packaged CLIP for minutes; docs/tutorials/own_generator.ipynb goes the way"
# (page, a line of the block) -> why it is not run.
NOT_RUN = {
    ("CONTRIBUTING.md", "make check"): "these make environments, which takes downloads",
    ("README.md", "make demo"): "these make environments, which takes downloads",
    ("README.md", "pip install ."): "downloads",
    ("README.md", "qdgs search examples/external_generator.toml --out runs/blobs"): OWN,
    ("docs/generators.md", "qdgs search examples/external_generator.toml --out runs/blobs"): OWN,
    ("docs/benchmarks.md", "qdgs search my.toml --seed SEED --out runs/SEED --baseline"): (
        "the commands of the first steps once more, for three seeds"
    ),
    (
        "docs/checkpoints.md",
        "qdgs port KIND SOURCE --describe",
    ): "words in capitals stand for others",
    ("docs/accelerators.md", "qdgs compile shapes --target tpu:v5e:2x2"): (
        "downloads, and minutes for each target"
    ),
    ("docs/recognition.md", "qdgs init drawn-faces my.toml"): "the parts of `qdgs demo faces`",
    ("docs/recognition.md", "python scripts/reproduce_faces.py --dry-run"): (
        "full-size networks; tests/train/faces/test_reproduction.py goes the way without them"
    ),
    ("docs/faces.md", "qdgs init faces my.toml"): PAPER,
    ("docs/faces.md", "qdgs generate runs/faces --images 50000 --out qd50"): PAPER,
}
SMALL = {
    "evaluations = 10000 ": f"evaluations = {EVALUATIONS} ",
    "emitters = 64": "emitters = 8",
    "cells = 50": "cells = 10",
    "images = 600": "images = 30",
    "margin = 0.25": "margin = 0.0",
}


def lines(block):
    """Command lines of a block, without prompts and comments."""
    joined = block.text.replace("\\\n", " ").splitlines()
    plain = (re.sub(r"\s*(#.*)?$", "", line).removeprefix("$ ") for line in joined)
    return [line for line in plain if line]


def run_lines(block, before=lambda line: None, after=lambda line: None):
    """Run the commands of a block in this process, with something done around each."""
    for line in lines(block):
        words = shlex.split(line)
        if words[0] == "pip":
            continue
        assert words[0] == "qdgs", f"{block.place}: what runs `{line}`?"
        before(line)
        assert qdgs(*words[1:]) == 0, f"{block.place}: {line}"
        after(line)


def block_with(page, line):
    """The block of a page that has a command line."""
    for block in SHELL:
        if block.page == page and line in lines(block):
            return block
    raise LookupError(f"no block of {page} has the line {line!r}")


RUN = []


def runs(*keys):
    """Give a test the blocks with these lines, of pages, one by one."""
    found = [block_with(*key) for key in keys]
    RUN.extend(found)
    return pytest.mark.parametrize("block", found, ids=lambda block: block.place)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A folder with the toy domain, and a quick stand-in for the repair of classifiers."""
    monkeypatch.chdir(tmp_path)
    play(monkeypatch)
    return tmp_path


def cut_budget(line):
    """Make the run file that `qdgs init` wrote a small one."""
    if line.startswith("qdgs init"):
        text = Path("my.toml").read_text(encoding="utf-8")
        for old, new in SMALL.items():
            assert old in text
            text = text.replace(old, new)
        Path("my.toml").write_text(text, encoding="utf-8")


@pytest.fixture
def quick_repair(monkeypatch):
    """What stands in for the training of a repair, of which the report can be made."""
    accuracy = {arm: np.full((5, 5, 4), 0.9) for arm in shapes_repair.ARMS}
    result = RepairResult((0.98, 0.95, 0.9, 0.85, 0.8), accuracy, dict.fromkeys(accuracy, 30))
    judged = SimpleNamespace(
        shares=lambda: dict.fromkeys((*shapes_repair.GROUPS, "unclear"), 0.2),
        label_agreement=lambda: 1.0,
    )
    trained = SimpleNamespace(accuracy=1.0)
    monkeypatch.setattr(repair, "run_repair", lambda *_: result)
    monkeypatch.setattr(oracle, "train_oracle", lambda *_, **__: trained)
    monkeypatch.setattr(oracle, "judge_dataset", lambda *_: judged)


@runs(("README.md", "qdgs report runs/my"), ("docs/index.md", "qdgs report runs/my"))
def test_the_first_steps(block, toy, quick_repair):
    run_lines(block, after=cut_budget)
    run = RunFolder("runs/my")
    assert (read_manifest(run.data).count, read_manifest(run.baseline.data).count) == (30, 30)
    assert "Repaired classifiers" in Path("runs/my/report/index.html").read_text(encoding="utf-8")


class Eye(NamedTuple):
    """Stands in for CLIP in an audit: everybody is of the first group."""

    groups: dict

    def look(self, pictures):
        count = len(pictures)
        return Seen(np.zeros((count, len(self.groups)), int), np.zeros((count, 2)))


@pytest.fixture
def finished(toy, monkeypatch):
    """Run file of the toy, and a function that makes a finished run of it with data sets."""
    monkeypatch.setattr(audits, "load_zero_shot", lambda config, groups: Eye(groups))
    write_run(toy / "my.toml", "map_elites")

    def make(name, *more):
        assert qdgs("search", "my.toml", "--out", name, "--baseline") == 0
        for command in more:
            assert qdgs(*shlex.split(command)) == 0

    return make


@runs(("docs/datasets.md", "qdgs report runs/my"))
def test_data_sets(block, finished, quick_repair):
    finished("runs/my")

    def begin_anew(line):
        if "--strict" in line:
            shutil.rmtree("runs/my/data")

    run_lines(block, before=begin_anew)
    assert load_classifier("models/small").classes == read_manifest("small").label_names
    assert read_manifest("small").source["margin"] == 0.1


@runs(("docs/audit.md", "qdgs audit runs/faces --cross skin,age"))
def test_audits(block, finished):
    groups = {"skin": "light mixed dark", "age": "young old", "gender": "one other"}
    tables = {
        name: {each: f"a person, {each}" for each in texts.split()}
        for name, texts in groups.items()
    }
    Path("my.toml").write_text(Path("my.toml").read_text() + tomli_w.dumps({"audit": tables}))
    finished("runs/faces", "generate runs/faces", "generate runs/faces --out ffhq")
    shutil.copytree("ffhq", "celeba")
    run_lines(block)
    assert [each.name for each in read_audit(Path("audits/ffhq")).attributes] == [
        "skin",
        "age",
        "gender",
    ]


@runs(("docs/runs.md", "qdgs search my.toml --seed 3"))
def test_seeds(block, toy):
    write_run(toy / "my.toml", "random", **{"evaluations = 20000": "evaluations = 600"})
    run_lines(block)
    assert {f"shapes-seed-{seed}" for seed in range(4)} == {p.name for p in Path("runs").iterdir()}


@runs(("docs/recognition.md", "qdgs import folder casia/ data/casia"))
def test_real_faces(block, toy):
    """Where blosc is absent, AdaFace's folder has its uncompressed copy."""
    pictures = face_files.faces(6)
    encoded = [face_files.encoded(picture) for picture in pictures]
    face_files.insightface(toy / "faces_emore", encoded, [0, 1, 1, 2, 2, 2])
    (toy / "faces_emore" / "lfw.bin").write_bytes(face_files.pairs_bin(encoded, [True] * 3))
    face_files.memfile(toy / "faces_emore" / "lfw", pictures, [True] * 3)
    for name in ("casia/0/a.png", "casia/1/b.png", "bfw/a.png", "bfw/b.png"):
        (toy / name).parent.mkdir(parents=True, exist_ok=True)
        (toy / name).write_bytes(encoded[0])
    (toy / "bfw.csv").write_text("p1,p2,label,att1,att2\na.png,b.png,1,dark,light\n")
    (toy / "pairs.txt").write_text("m.1\t1\t2\n")
    (toy / "African" / "m.1").mkdir(parents=True)
    for number in (1, 2):
        (toy / "African" / "m.1" / f"m.1_000{number}.jpg").write_bytes(encoded[number])

    def take_away(line):
        if line.split()[2:4] == ["verification", "faces_emore/lfw"]:
            shutil.rmtree("data/lfw")

    run_lines(block, before=take_away)
    assert {p.name for p in Path("data").iterdir()} == {"ms1mv2", "casia", "lfw", "rfw", "bfw"}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Small checkpoints under the names of the guide."""
    folder = tmp_path_factory.mktemp("checkpoints")
    generator = formats.without_classes(formats.tiny_stylegan2())
    clip = formats.openai_state(load_manifest("clip", "clip_openai_tiny"))
    published = load_manifest("clip", "clip_tiny")
    files = {
        "stylegan2-ffhq-256x256.pkl": formats.nvidia_pkl(generator),
        "ViT-B-32.pt": tw.zip_bytes(clip),
        "adaface_ir50_ms1mv2.ckpt": tw.zip_bytes(formats.lightning(formats.small_adaface())),
        "vae-shapes.pt": (DATA / "ports" / "vae_tiny.pt").read_bytes(),
        "augmentations.pt": tw.zip_bytes(np.arange(15.0).reshape(3, 5)),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    weights = {"model.safetensors": formats.safetensors(formats.stored(published))}
    config = formats.hugging_face_config(published)
    formats.write_folder(folder / "clip-vit-base-patch32", config, weights)
    return folder


@runs(
    ("README.md", "qdgs port vae vae-shapes.pt weights/vae"),
    ("docs/checkpoints.md", "qdgs port stylegan2 stylegan2-ffhq-256x256.pkl weights/ffhq-256"),
    ("docs/checkpoints.md", "qdgs port clip ViT-B-32.pt weights/vit-b-32"),
    ("docs/checkpoints.md", "qdgs port adaface adaface_ir50_ms1mv2.ckpt weights/ir50"),
    ("docs/checkpoints.md", "qdgs port vae vae-shapes.pt weights/vae"),
    ("docs/checkpoints.md", "qdgs port latents augmentations.pt weights/augmentations"),
)
def test_conversions(block, checkpoints, monkeypatch):
    monkeypatch.chdir(checkpoints)
    shutil.rmtree("weights", ignore_errors=True)
    run_lines(block)
    for line in lines(block):
        kind, _, destination = shlex.split(line)[2:]
        assert load_config(destination)["kind"] == kind


def test_the_guide_converts_every_kind():
    guide = [line for block in RUN if block.page == "docs/checkpoints.md" for line in lines(block)]
    assert {shlex.split(line)[2] for line in guide} == set(PORTED)


def test_every_block_is_run_or_has_a_reason():
    left_out = [block_with(*key) for key in NOT_RUN]
    taken = sorted(block.place for block in (*RUN, *left_out))
    assert taken == sorted(block.place for block in SHELL)


def test_a_line_that_is_gone_or_fails_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LookupError, match=r"no block of README\.md has the line 'make dmo'"):
        block_with("README.md", "make dmo")
    (wrong,) = blocks("```sh\n$ qdgs report nothing  # a run\n```", "page.md")
    assert lines(wrong) == ["qdgs report nothing"]
    with pytest.raises(AssertionError, match=r"page\.md:2: qdgs report nothing"):
        run_lines(wrong)
