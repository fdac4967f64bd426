"""`qdgs compile` where no compiler of an accelerator is installed: what it says, and when."""

import importlib.util

import numpy as np
import pytest
from toy_runs import qdgs

from qdgs_jax import ports
from qdgs_jax.cli.compile import configured
from qdgs_jax.cli.init import packaged_run


@pytest.fixture(autouse=True)
def without_compilers(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    missing = ("libtpu", "jax_cuda13_plugin")
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name in missing else found(name, *rest),
    )
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shapes", "--target", "tpu:v5e"], "pip install 'qdgs-jax[tpu-compiler]'"),
        (["shapes", "--target", "cuda:h100"], "pip install 'qdgs-jax[cuda-compiler]'"),
        (["shapes", "--target", "tpu:v9"], "no target 'tpu:v9': known are tpu:v5e"),
        (["nothing", "--target", "tpu:v5e"], "no packaged run file 'nothing'"),
        (["no.toml", "--target", "tpu:v5e"], "no such run file"),
        (["shapes", "--target", "tpu:v5e", "--program", "play"], "search, generate, train"),
        (["shapes", "--target", "tpu:v5e", "--dtype", "int8"], "dtype"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(arguments, said, capsys):
    assert qdgs("compile", *arguments) == 2
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{arguments[0]}: reading the run")
    assert said in shown.err
    assert len(shown.err.splitlines()) <= 2


def test_the_command_line_comes_before_the_file(tmp_path):
    (tmp_path / "my.toml").write_text(packaged_run("faces"))
    config = configured("my.toml", "ffhq-256", "vit-b-32", 4, 2, "bfloat16")
    assert (config.domain.generator, config.domain.clip) == ("ffhq-256", "vit-b-32")
    assert config.search.emitters == 4
    assert (config.evaluation.batch, config.evaluation.dtype) == (2, "bfloat16")
    assert config.domain.truncation == 0.7


def test_a_run_is_not_compiled_with_augmentations_of_another_generator(tmp_path, capsys):
    config = {"kind": "latents", "count": 2, "latent_dim": 10}
    ports.save_model(tmp_path / "wide", config, {"rows": np.zeros((2, 10), np.float32)})
    text = packaged_run("drawn-faces").replace('"embedded:faces-augmentations"', '"wide"')
    (tmp_path / "my.toml").write_text(text)
    given = ("compile", "my.toml", "--target", "tpu:v5e:2x2")
    assert qdgs(*given) == 2
    assert "of 10 numbers, and the generator's latents have 520" in capsys.readouterr().err
    assert qdgs(*given, "--generator", "ffhq-256") == 2  # the costs of another generator
    assert "tpu-compiler" in capsys.readouterr().err
