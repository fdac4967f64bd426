"""`qdgs port` for every kind of model: conversions, what they tell, lists of tensors, scripts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import checkpoint_formats as formats
import numpy as np
import pytest
import torch_writer as tw
from flax import nnx
from synthetic import DATA, load_manifest

from qdgs_jax import ports
from qdgs_jax.cli import app, console
from qdgs_jax.ports.conversion import recognise
from qdgs_jax.ports.mapping import parameter_shapes
from qdgs_jax.ports.registry import PORTED
from qdgs_jax.ports.source import open_content

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"


def qdgs(*arguments):
    """Run a command in this process and return its exit code."""
    return console.guarded(lambda: app([str(a) for a in arguments]))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A small checkpoint of each kind."""
    folder = tmp_path_factory.mktemp("sources")
    clip, adaface = folder / "clip.pt", folder / "adaface.ckpt"
    state = formats.openai_state(load_manifest("clip", "clip_openai_tiny"))
    clip.write_bytes(tw.zip_bytes(state))
    adaface.write_bytes(tw.zip_bytes(formats.lightning(formats.small_adaface())))
    latents = folder / "augmentations.pt"
    latents.write_bytes(tw.zip_bytes(np.arange(15.0).reshape(3, 5)))
    ours = {"stylegan2": DATA / "ports/nvidia_ada.pkl", "vae": DATA / "ports/vae_tiny.pt"}
    return {**ours, "clip": clip, "adaface": adaface, "latents": latents}


CONVERTED = {
    "stylegan2": (
        "an NVIDIA network pickle: 1,213 parameters of float32",
        "resolution: 8",
        "not needed by the model: 5 x resample_filter",
        "left in the file: G (39 tensors), D (37 tensors)",
    ),
    "clip": (
        "an OpenAI CLIP state dict: 539,137 parameters of float32",
        "activation: quick_gelu",
        "not needed by the model: input_resolution, context_length, vocab_size",
    ),
    "adaface": (
        "a Lightning checkpoint of AdaFace: 11,192,472 parameters of float32",
        "architecture: ir_18",
        "not needed by the model: 30 x num_batches_tracked",
        "left in the file: state_dict.head (1 tensor), callbacks (1 tensor), "
        "optimizer_states (1 tensor)",
    ),
    "vae": ("a shapes VAE state dict: 2,543 parameters of float32", "latents: 3"),
    "latents": ("a list of latents: 15 parameters of float32", "latents: 3", "numbers of each: 5"),
}


@pytest.mark.parametrize("kind", PORTED)
def test_a_conversion_says_what_it_did(kind, sources, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert qdgs("port", kind, sources[kind], "out") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"reading {sources[kind]}"
    assert lines[-1] == "wrote out"
    for line in CONVERTED[kind]:
        assert line in lines
    left = [line for line in lines if line.startswith(("not needed", "left in"))]
    assert set(left) <= set(CONVERTED[kind])
    assert ports.load_config("out")["kind"] == kind


@pytest.mark.parametrize("kind", PORTED)
def test_recognising_a_model_makes_no_weights(kind, sources, monkeypatch):
    with open_content(sources[kind]) as content:
        found = recognise(kind, content)
        monkeypatch.setattr(nnx, "Rngs", None)  # deep models take minutes with its keys
        assert parameter_shapes(found.build)


def test_other_parts_beside_a_flat_state_dict_are_counted(tmp_path, capsys):
    state = dict(ports.read_checkpoint(DATA / "ports/vae_tiny.pt"))
    steps = [np.ones(2, np.float32), np.ones(2, np.float32)]
    root = {**state, "epoch": 3, "optimizer": {"exp_avg": steps}}
    root |= {f"run{i}": [np.ones(1, np.float32)] for i in range(10)}
    (tmp_path / "vae.pt").write_bytes(tw.zip_bytes(root))
    assert qdgs("port", "vae", tmp_path / "vae.pt", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert "left in the file: optimizer (2 tensors), run0 (1 tensor), run1 (1 tensor), " in shown
    assert "run6 (1 tensor) and 3 more\n" in shown


DESCRIBED = {
    "stylegan2": ("115 tensors", "G_ema.synthesis.b8.conv0.weight", "float32", "5x5x3x3"),
    "clip": ("65 tensors", "visual.conv1.weight", "float16", "128x3x8x8"),
    "adaface": ("182 tensors", "state_dict.model.output_layer.4.running_var", "float32", "8"),
    "vae": ("18 tensors", "decoder.convT3.bias", "float32", "3"),
    "latents": ("1 tensor", "(unnamed)", "float64", "3x5"),
}


@pytest.mark.parametrize("kind", PORTED)
def test_describe_lists_tensors_and_writes_nothing(kind, sources, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert qdgs("port", kind, sources[kind], "--describe") == 0
    *tensors, last = capsys.readouterr().out.splitlines()
    count, *line = DESCRIBED[kind]
    assert last == count
    assert len(tensors) == int(count.split()[0])
    assert line in [tensor.split() for tensor in tensors]
    assert not list(tmp_path.iterdir())


def test_describe_of_a_bare_tensor(tmp_path, capsys):
    (tmp_path / "one.pt").write_bytes(tw.zip_bytes(np.ones((2, 3), np.float16)))
    assert qdgs("port", "vae", tmp_path / "one.pt", "--describe") == 0
    assert capsys.readouterr().out.splitlines() == ["(unnamed)  float16   2x3", "1 tensor"]


def test_names_from_a_file_cannot_steer_the_terminal(tmp_path, capsys):
    name = "\x1b[2Jdecoder\nfake line\u202e\r"
    state = dict(ports.read_checkpoint(DATA / "ports/vae_tiny.pt"))
    (tmp_path / "vae.pt").write_bytes(tw.zip_bytes({**state, name: np.ones(1, np.float32)}))
    assert qdgs("port", "vae", tmp_path / "vae.pt", "--describe") == 0
    *_, tensor, count = capsys.readouterr().out.splitlines()
    assert tensor.split("  ")[0] == r"\x1b[2Jdecoder\nfake line\u202e\r"
    assert count == "19 tensors"
    assert qdgs("port", "vae", tmp_path / "vae.pt", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert r"nothing in the model takes '\x1b[2Jdecoder\nfake line" in error
    assert error.count("\n") == 1
    with pytest.raises(ports.CheckpointError) as caught:
        ports.convert("vae", tmp_path / "vae.pt", tmp_path / "out")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "shown"),
    [("\x1b[2J", r"\x1b[2J"), ("a\nb", r"a\nb"), ("\ud800", r"\ud800"), ("å b", "å b")],
)
def test_letters_without_a_picture_are_escaped(name, shown):
    assert console.printable(name) == shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["vae", "some.pt"], "folder to write"),
        (["gan", "some.pt", "--describe"], "'stylegan2', 'clip', 'adaface', 'vae'"),
        (["vae", DATA / "ports/vae_tiny.pt", "out", "--dtype", "int8"], "give one of float32"),
        (["clip", DATA / "ports/vae_tiny.pt", "out"], "This is not a CLIP"),
    ],
)
def test_wrong_arguments_are_named(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert qdgs("port", *arguments) == 2
    error = " ".join(capsys.readouterr().err.replace("│", "").split())
    assert words in error
    assert not list(tmp_path.iterdir())


def test_the_help_names_kinds_and_defaults(capsys):
    assert qdgs("port", "--help") == 0
    shown = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "stylegan2, clip, adaface, vae or latents" in shown
    assert "[default: float32]" in shown


FAKE_TORCH = "import os, pathlib; pathlib.Path(os.environ['IMPORTED']).touch()\n"
RUN_SCRIPTS = """
import importlib.metadata, importlib.util, json, runpy, sys
scripts, sources = sys.argv[1], json.loads(sys.argv[2])
assert importlib.metadata.version("torch") == "9.9.9"
for kind, source in sources.items():
    sys.argv = [f"port_{kind}.py", source, kind]
    try:
        runpy.run_path(f"{scripts}/port_{kind}.py", run_name="__main__")
    except SystemExit as stop:
        assert stop.code == 0, kind
    names = [name for name in sys.modules if name.partition(".")[0] == "torch"]
    assert not names, (kind, names)
"""


def test_scripts_port_every_kind_and_import_no_torch_even_where_there_is_one(sources, tmp_path):
    site = tmp_path / "site"
    (site / "torch").mkdir(parents=True)
    (site / "torch" / "__init__.py").write_text(FAKE_TORCH)
    (site / "torch-9.9.9.dist-info").mkdir()
    (site / "torch-9.9.9.dist-info" / "METADATA").write_text("Name: torch\nVersion: 9.9.9\n")
    paths = json.dumps({kind: str(path) for kind, path in sources.items()})
    done = subprocess.run(
        [sys.executable, "-c", RUN_SCRIPTS, str(SCRIPTS), paths],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site), "IMPORTED": str(tmp_path / "imported")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "imported").exists()
    for kind in PORTED:
        assert ports.load_config(tmp_path / kind)["kind"] == kind


def test_errors_cannot_steer_the_terminal_either(capsys):
    def fail():
        raise OSError("first\x1b[2J line\nsecond line")

    assert console.guarded(fail) == console.FAILURE
    assert capsys.readouterr().err == "error: first\\x1b[2J line\nsecond line\n"
