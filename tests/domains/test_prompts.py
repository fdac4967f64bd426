"""Prompts as a run file holds them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from flax import nnx

from qdgs_jax.domains.prompts import PromptPair, embed_prompts, split_prompt
from qdgs_jax.domains.weights import load_clip
from qdgs_jax.models.clip import CLIP, CLIPConfig, TowerConfig


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("a red shape", ("a red shape",)),
        (" a red shape|a star ", ("a red shape", "a star")),
        ("a star | ", ("a star", "")),
        ("", ("",)),
    ],
)
def test_a_side_is_split_at_bars(prompt, texts):
    assert split_prompt(prompt) == texts


def test_run_files_can_be_checked_without_jax():
    program = (
        "import sys, qdgs_jax.domains.prompts, qdgs_jax.domains.weights;"
        "sys.exit('jax' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("end", "tokens", "message"),
    [
        (9, [8, 10, 9, 9], "the token 10, this CLIP has 10 tokens"),
        (9, [8, 3, 7, 7], "without the token 9, where this CLIP looks for the end"),
        (2, [8, 10, 9, 9], "the token 10, this CLIP has 10 tokens"),
    ],
)
def test_the_tokenizer_of_another_model_is_refused(end, tokens, message):
    tower = TowerConfig(width=4, layers=1, heads=1, mlp_width=4, activation="gelu")
    cfg = CLIPConfig(tower, tower, 8, 8, 10, 4, 4, eos_token_id=end)
    clip = CLIP(cfg, rngs=nnx.Rngs(0))

    def tokenizer(text, *, padding, max_length):
        return {"input_ids": [tokens] * len(text)}

    with pytest.raises(ValueError, match=message):
        embed_prompts(clip, tokenizer, [PromptPair(("a",), ("b",))])
    sound = embed_prompts(
        clip,
        lambda text, **_: {"input_ids": [[8, 3, 9, 9]] * len(text)},
        [PromptPair(("a",), ("b",))],
    )
    assert sound[0].positive.shape == (1, 4)


TRANSFORMERS = """
import os
asked = os.environ.get("TRANSFORMERS_NO_ADVISORY_WARNINGS")
class CLIPTokenizerFast:
    @staticmethod
    def from_pretrained(*_, **__):
        return asked
"""


@pytest.mark.parametrize("own", [None, "0"])
def test_transformers_is_asked_for_no_advice_and_nobody_else_notices(own, tmp_path, monkeypatch):
    (tmp_path / "transformers.py").write_text(TRANSFORMERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)  # what is there now comes back
    del sys.modules["transformers"]
    monkeypatch.setattr("qdgs_jax.ports.loading.load", lambda *_, **__: None)
    name = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    monkeypatch.delenv(name, raising=False)
    if own is not None:
        monkeypatch.setenv(name, own)
    assert load_clip("embedded:shapes-clip")[1] == (own or "1")
    assert os.environ.get(name) == own
