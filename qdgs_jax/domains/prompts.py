"""Prompts as texts, and their embeddings by CLIP's text tower.

Run files are checked with what stands here before JAX is imported, so it is imported late.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import jax
    import numpy as np

    from qdgs_jax.domains.scoring import PromptAxis
    from qdgs_jax.models.clip import CLIP, CLIPConfig, TextTower

LARGEST = 2  # as a CLIP's eos_token_id: the largest token of a text is its end


class PromptPair(NamedTuple):
    """The texts at both ends of an axis.

    Attributes:
        positive: one text or more, at the end of small values.
        negative: one text or more, at the end of large values.
    """

    positive: tuple[str, ...]
    negative: tuple[str, ...]


class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    def __call__(
        self, text: list[str], *, padding: str, max_length: int
    ) -> Mapping[str, list[list[int]]]:
        """Token ids below "input_ids", one list per text, none shorter than `max_length`."""


def split_prompt(prompt: str) -> tuple[str, ...]:
    """The texts of one side of a prompt pair, separated by `|`; empty ones are kept."""
    return tuple(text.strip() for text in prompt.split("|"))


def encode_texts(cfg: CLIPConfig, tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Tokens of texts, each filled up to the length that the model takes.

    Raises:
        ValueError: if a text has more tokens than the model takes, or the tokenizer is that of
            another model.
    """
    length = cfg.context_length
    encoded = tokenizer(list(texts), padding="max_length", max_length=length)["input_ids"]
    for text, tokens in zip(texts, encoded, strict=True):
        if len(tokens) > length:
            raise ValueError(
                f"the prompt {text!r} has {len(tokens)} tokens, this CLIP takes {length}: shorten "
                "it."
            )
        _check_tokens(text, tokens, cfg)
    return encoded


def _check_tokens(text: str, tokens: Sequence[int], cfg: CLIPConfig) -> None:
    """Refuse tokens that the model has not, which it would take for others.

    Raises:
        ValueError: the tokenizer is that of another model.
    """
    cure = "put the tokenizer of this very CLIP beside its weights."
    if max(tokens) >= cfg.vocab_size:
        raise ValueError(
            f"the tokenizer gives the prompt {text!r} the token {max(tokens)}, this CLIP has "
            f"{cfg.vocab_size} tokens: {cure}"
        )
    if cfg.eos_token_id not in (LARGEST, *tokens):
        raise ValueError(
            f"the tokenizer ends the prompt {text!r} without the token {cfg.eos_token_id}, where "
            f"this CLIP looks for the end: {cure}"
        )


def embed_prompts(
    clip: CLIP, tokenizer: Tokenizer, pairs: Sequence[PromptPair]
) -> tuple[PromptAxis, ...]:
    """Embed prompt pairs; a text that occurs several times is embedded once.

    Args:
        clip: the model, of which the text tower runs once.
        tokenizer: its tokenizer.
        pairs: texts.

    Raises:
        ValueError: if a text has more tokens than the model takes, or the tokenizer is that of
            another model.
    """
    from qdgs_jax.domains.scoring import PromptAxis

    sides = iter(embed_texts(clip, tokenizer, [side for pair in pairs for side in pair]))
    return tuple(PromptAxis(positive, next(sides)) for positive in sides)


def embed_texts(
    clip: CLIP, tokenizer: Tokenizer, sides: Sequence[tuple[str, ...]]
) -> list[jax.Array]:
    """Embed lists of texts; a text that occurs several times is embedded once.

    Args:
        clip: the model, of which the text tower runs once.
        tokenizer: its tokenizer.
        sides: at least one list, each of at least one text.

    Returns:
        For each list Float[texts, E].

    Raises:
        ValueError: if a text has more tokens than the model takes, or the tokenizer is that of
            another model.
    """
    import jax
    import numpy as np

    texts = list(dict.fromkeys(text for side in sides for text in side))
    encoded = encode_texts(clip.cfg, tokenizer, texts)
    with jax.default_matmul_precision("highest"):  # once a run: all measures hang on it
        embeds = np.asarray(_embedding()(clip.text, np.asarray(encoded, np.int32)))
    row = {text: number for number, text in enumerate(texts)}
    return jax.device_put([embeds[[row[text] for text in side]] for side in sides])


@functools.cache
def _embedding() -> Callable[[TextTower, np.ndarray], jax.Array]:
    """One program: operation by operation, each of them is compiled for each number of texts."""
    from flax import nnx

    embed: Callable[[TextTower, np.ndarray], jax.Array] = nnx.jit(lambda tower, x: tower(x))
    return embed
