"""A frozen generator whose images are scored by CLIP against prompts: the problem of QDGS.

All 1 + M outputs share one forward pass; for the Jacobian their cotangents are pulled back
together. Weights and embedded prompts are `params`, arguments of every compiled function; only the
image tower of CLIP is among them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.struct import PyTreeNode

from qdgs_jax.domains import scoring
from qdgs_jax.domains.cutouts import random_cutouts
from qdgs_jax.models.clip import CLIP, CLIPConfig, normalise_pixels
from qdgs_jax.problem import Evaluation, ProblemState, pull_back_outputs


class Generator(Protocol):
    """A frozen image generator as pure functions of its weights."""

    @property
    def latent_dim(self) -> int:
        """Length D of a latent."""

    def decode(self, params: Any, latents: jax.Array) -> jax.Array:
        """Images Float[B, H, W, 3] in [0, 1] of latents Float[B, D]."""

    def sample(self, params: Any, key: jax.Array, count: int) -> jax.Array:
        """Latents Float[count, D] from the generator's prior."""


class DomainParams(PyTreeNode):  # type: ignore[no-untyped-call]
    """Everything with numbers in it.

    Attributes:
        generator: the generator's weights.
        clip: weights of CLIP's image tower.
        targets: embedded prompts.
        norm_bound: Float[], the norm that latents may have without a penalty.
    """

    generator: Any
    clip: Any
    targets: scoring.Targets
    norm_bound: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class PromptedDomain:
    """A `Problem`: latents are decoded, embedded and scored.

    Attributes:
        generator: makes the images.
        clip_graph: structure of CLIP's image tower.
        clip_config: its sizes.
        params: the weights that belong to it.
        cutouts: random cutouts per image; 0 scores the whole image.
        norm_weight: weight of the penalty on latents longer than the bound.
        uniqueness_weight: weight of the reward for images unlike remembered ones.
        start_batches: batches that start latents are looked for in.
        start_batch_size: latents per batch.
        num_start: start latents to find.
    """

    generator: Generator
    clip_graph: Any
    clip_config: CLIPConfig
    params: DomainParams
    cutouts: int = 0
    norm_weight: float = 0.0
    uniqueness_weight: float = 0.0
    start_batches: int = 32
    start_batch_size: int = 16
    num_start: int = 8

    @property
    def latent_dim(self) -> int:
        """Length D of a latent."""
        return self.generator.latent_dim

    @property
    def num_measures(self) -> int:
        """Number M of measures."""
        return len(self.params.targets.measures)

    def init_state(self) -> ProblemState:
        """An empty memory, or nothing where uniqueness has no weight."""
        return scoring.Memory.create(self.clip_config.embed_dim) if self.uniqueness_weight else ()

    def evaluate(
        self, params: DomainParams, state: ProblemState, latents: jax.Array, key: jax.Array
    ) -> Evaluation:
        """Score latents Float[B, D]."""
        (objective, measures), extra = self._score(params, state, key, latents)
        return Evaluation(objective, measures, extra)

    def evaluate_with_jacobian(
        self, params: DomainParams, state: ProblemState, latents: jax.Array, key: jax.Array
    ) -> tuple[Evaluation, jax.Array]:
        """Score latents Float[B, D]; also their Jacobian Float[B, 1 + M, D]."""
        score = functools.partial(self._score, params, state, key)
        (objective, measures), pull_back, extra = jax.vjp(score, latents, has_aux=True)
        jacobian = pull_back_outputs(pull_back, objective, measures)
        return Evaluation(objective, measures, extra), jacobian

    def observe(self, state: ProblemState, evaluation: Evaluation, key: jax.Array) -> ProblemState:
        """Remember an embedding of a good image, where uniqueness has a weight."""
        if not self.uniqueness_weight:
            return state
        return state.remember(evaluation.extra["embeds"], evaluation.extra["loss"], key)

    def decode(self, params: DomainParams, latents: jax.Array) -> jax.Array:
        """Images Float[B, H, W, 3] in [0, 1] of latents Float[B, D]."""
        return self.generator.decode(params.generator, latents)

    def sample_latents(self, key: jax.Array, count: int) -> jax.Array:
        """Latents Float[count, D] from the generator's prior."""
        return self.generator.sample(self.params.generator, key, count)

    def sample(self, params: DomainParams, key: jax.Array, count: int) -> jax.Array:
        """Latents Float[count, D] from the generator's prior."""
        return self.generator.sample(params.generator, key, count)

    def pictures(self, params: DomainParams, latents: jax.Array) -> jax.Array:
        """Images UInt8[B, H, W, 3] of latents Float[B, D]."""
        images = jnp.clip(self.decode(params, latents), 0.0, 1.0)
        return jnp.round(255.0 * images).astype(jnp.uint8)

    def start_latents(self, params: DomainParams, key: jax.Array) -> jax.Array:
        """The best of `start_batches` x `start_batch_size` samples, Float[num_start, D].

        The best latent of each batch competes; the first has the highest objective.
        """
        return _find_start(self, params, key)

    def _score(
        self, params: DomainParams, state: ProblemState, key: jax.Array, latents: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], dict[str, jax.Array]]:
        images = self.decode(params, latents)
        pieces = random_cutouts(images, key, self.cutouts, self.clip_config.image_size)
        flat = pieces.reshape(-1, *pieces.shape[2:])
        embeds = embed_images(self.clip_graph, self.clip_config, params.clip, flat)
        embeds = embeds.reshape(*pieces.shape[:2], -1)
        loss, measures = scoring.prompt_distances(params.targets, embeds)
        if self.norm_weight:
            loss = loss + self.norm_weight * scoring.norm_penalty(latents, params.norm_bound)
        extra = {}
        if self.uniqueness_weight:
            centre = scoring.normalize(embeds).mean(axis=0)
            loss = loss + self.uniqueness_weight * (1 - state.uniqueness(centre))
            extra = {"embeds": centre, "loss": loss}
        return (scoring.objective_of_loss(loss), measures), extra


@functools.partial(jax.jit, static_argnums=0)
def _find_start(domain: PromptedDomain, params: DomainParams, key: jax.Array) -> jax.Array:
    state = domain.init_state()

    def batch(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        sample_key, score_key = jax.random.split(key)
        latents = domain.generator.sample(params.generator, sample_key, domain.start_batch_size)
        fitnesses = domain.evaluate(params, state, latents, score_key).fitnesses
        fitnesses = jnp.where(jnp.isfinite(fitnesses), fitnesses, -jnp.inf)
        values, rows = jax.lax.top_k(fitnesses, kept)
        return values, latents[rows]

    kept = min(domain.start_batch_size, -(-domain.num_start // domain.start_batches))
    values, latents = jax.lax.map(batch, jax.random.split(key, domain.start_batches))
    _, rows = jax.lax.top_k(values.reshape(-1), domain.num_start)
    return latents.reshape(-1, domain.latent_dim)[rows]


def embed_images(graph: Any, config: CLIPConfig, state: Any, images: jax.Array) -> jax.Array:
    """Embed images Float[B, S, S, 3] in [0, 1] by an image tower in two halves."""
    embeds: jax.Array = nnx.merge(graph, state)(normalise_pixels(config, images))
    return embeds


def embed_prompts(
    clip: CLIP, tokenizer: Any, pairs: Sequence[tuple[str, str]]
) -> tuple[scoring.PromptPair, ...]:
    """Embed prompt pairs; each side is a text or several separated by `|`.

    Args:
        clip: the model, of which the text tower runs once.
        tokenizer: a Hugging Face tokenizer.
        pairs: (positive, negative) prompts.

    Raises:
        ValueError: if a text has more tokens than the model takes.
    """
    sides = [scoring.split_prompt(side) for pair in pairs for side in pair]
    texts = [text for side in sides for text in side]
    length = clip.cfg.context_length
    encoded = tokenizer(texts, padding="max_length", max_length=length)["input_ids"]
    for text, tokens in zip(texts, encoded, strict=True):
        if len(tokens) > length:
            raise ValueError(
                f"the prompt {text!r} has {len(tokens)} tokens, this CLIP takes {length}: shorten "
                "it."
            )
    embeds = clip.embed_texts(jnp.asarray(np.asarray(encoded, np.int32)))
    parts = jnp.split(embeds, np.cumsum([len(side) for side in sides])[:-1])
    return tuple(
        scoring.PromptPair(positive, negative)
        for positive, negative in zip(parts[::2], parts[1::2], strict=True)
    )
