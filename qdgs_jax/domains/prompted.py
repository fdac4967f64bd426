"""A frozen generator whose images are scored by CLIP against prompts: the problem of QDGS.

All 1 + M outputs share one forward pass; for the Jacobian their cotangents are pulled back
together, or one by one where latents are taken a few at a time. Weights and embedded prompts are
`params`, arguments of every compiled function; only the image tower of CLIP is among them.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Generic

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qdgs_jax import keys
from qdgs_jax.domains import scoring
from qdgs_jax.domains.batches import in_batches
from qdgs_jax.domains.cutouts import random_cutouts
from qdgs_jax.domains.evaluation import Computation
from qdgs_jax.domains.memory import Memory
from qdgs_jax.domains.prompts import PromptPair, embed_prompts
from qdgs_jax.domains.protocol import DomainParams, Generator, LatentStatistics, P, RunSettings
from qdgs_jax.domains.spread import SAMPLES, MeasureSpread, measure_spread
from qdgs_jax.domains.start import StartSettings, find_start
from qdgs_jax.domains.weights import load_clip
from qdgs_jax.models.clip import CLIPConfig, VisionTower, normalise_pixels
from qdgs_jax.models.variables import PreparedModel
from qdgs_jax.problem import Evaluation, ProblemState, prepared_weights, pull_back_outputs

Scored = tuple[tuple[jax.Array, jax.Array], dict[str, jax.Array]]


@dataclasses.dataclass(frozen=True, eq=False)
class PromptedDomain(Generic[P]):
    """A `Domain`: latents are decoded, embedded and scored.

    Attributes:
        generator: makes the images.
        clip_graph: structure of CLIP's image tower.
        clip_config: its sizes.
        params: the weights that belong to it.
        computation: how images are computed and scored.
        cutouts: random cutouts per image; 0 scores the whole image.
        norm_weight: weight of the penalty on latents longer than the bound.
        uniqueness_weight: weight of the reward for images unlike remembered ones.
        start: how start latents are found.
    """

    generator: Generator[P]
    clip_graph: nnx.GraphDef[VisionTower]
    clip_config: CLIPConfig
    params: DomainParams[P]
    computation: Computation = dataclasses.field(default_factory=Computation)
    cutouts: int = 0
    norm_weight: float = 0.0
    uniqueness_weight: float = 0.0
    start: StartSettings = dataclasses.field(default_factory=StartSettings)

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
        return Memory.create(self.clip_config.embed_dim) if self.uniqueness_weight else ()

    def prepare_weights(self, params: DomainParams[P]) -> DomainParams[P]:
        """Weights as they are multiplied, for functions of this domain (`Prepares`)."""
        tower = nnx.merge(self.clip_graph, params.clip)
        tower.prepare()
        weights = prepared_weights(self.generator, params.generator)
        prepared: DomainParams[P] = params.replace(generator=weights, clip=PreparedModel.of(tower))
        return prepared

    def evaluate(
        self, params: DomainParams[P], state: ProblemState, latents: jax.Array, key: jax.Array
    ) -> Evaluation:
        """Score latents Float[B, D]; the same cutouts of all images are scored."""
        score = functools.partial(self._score, params, state, key)
        with self.computation.products():
            (objective, measures), extra = in_batches(score, latents, self.computation.batch)
        return Evaluation(objective, measures, extra)

    def evaluate_with_jacobian(
        self, params: DomainParams[P], state: ProblemState, latents: jax.Array, key: jax.Array
    ) -> tuple[Evaluation, jax.Array]:
        """Score latents Float[B, D]; also their Jacobian Float[B, 1 + M, D]."""
        score = functools.partial(self._score, params, state, key)
        one_by_one = self.computation.splits(latents.shape[0])

        def differentiate(latents: jax.Array) -> tuple[Scored, jax.Array]:
            scores, pull_back, extra = jax.vjp(score, latents, has_aux=True)
            return (scores, extra), pull_back_outputs(pull_back, *scores, one_by_one=one_by_one)

        with self.computation.products():
            ((objective, measures), extra), jacobian = in_batches(
                differentiate, latents, self.computation.batch
            )
        return Evaluation(objective, measures, extra), jacobian

    def observe(self, state: ProblemState, evaluation: Evaluation, key: jax.Array) -> ProblemState:
        """Remember an embedding of a good image, where uniqueness has a weight."""
        if not self.uniqueness_weight:
            return state
        return state.remember(evaluation.extra["embeds"], evaluation.extra["loss"], key)

    @jax.named_scope("generator")
    def decode(self, params: DomainParams[P], latents: jax.Array) -> jax.Array:
        """Images Float[B, H, W, 3] in [0, 1] of latents Float[B, D], float32."""
        latents = params.statistics.restore(latents)
        return self.generator.decode(params.generator, latents).astype(jnp.float32)

    def pictures(self, params: DomainParams[P], latents: jax.Array) -> jax.Array:
        """Images UInt8[B, H, W, 3] of latents Float[B, D], rounded on the device."""
        return _pictures(self, params, latents)

    def sample(self, params: DomainParams[P], key: jax.Array, count: int) -> jax.Array:
        """Latents Float[count, D] from the generator's prior."""
        return params.statistics.normalise(self.generator.sample(params.generator, key, count))

    def start_latents(self, params: DomainParams[P], key: jax.Array) -> jax.Array:
        """Good latents Float[start.count, D] to start from; see `find_start`.

        As in the published program they are judged by the prompts alone: a penalty on their norm
        would choose the samples nearest to the average image.

        Raises:
            ValueError: if more are wanted than are sampled.
        """
        judge = dataclasses.replace(self, norm_weight=0.0) if self.norm_weight else self
        return find_start(judge, params, key, self.start)

    def spread(self, params: DomainParams[P], key: jax.Array) -> tuple[MeasureSpread, ...]:
        """How far each measure reaches over the generator's own samples, `SAMPLES` of them."""
        measures, embeds = map(np.asarray, _sampled(self, params, key))
        return measure_spread(measures, embeds, params.targets.measures)

    def _embed(self, params: DomainParams[P], key: jax.Array, latents: jax.Array) -> jax.Array:
        """Embeddings Float[n, B, E] of n cutouts per image."""
        images = self.decode(params, latents)
        pieces = random_cutouts(images, key, self.cutouts, self.clip_config.image_size)
        flat = pieces.reshape(-1, *pieces.shape[2:])
        embeds = embed_images(self.clip_graph, self.clip_config, params.clip, flat)
        return embeds.reshape(*pieces.shape[:2], -1)

    def _score(
        self, params: DomainParams[P], state: ProblemState, key: jax.Array, latents: jax.Array
    ) -> Scored:
        embeds = self._embed(params, key, latents)
        loss, measures = scoring.prompt_distances(params.targets, embeds)
        if self.norm_weight:
            bound = params.statistics.norm_bound
            loss = loss + self.norm_weight * scoring.norm_penalty(latents, bound)
        extra = {}
        if self.uniqueness_weight:
            centre = scoring.normalize(embeds).mean(axis=0)
            loss = loss + self.uniqueness_weight * (1 - state.uniqueness(centre))
            extra = {"embeds": centre, "loss": loss}
        return (scoring.objective_of_loss(loss), measures), extra


@functools.partial(jax.jit, static_argnums=0)
def _pictures(domain: PromptedDomain[P], params: DomainParams[P], latents: jax.Array) -> jax.Array:
    def draw(latents: jax.Array) -> jax.Array:
        images = jnp.clip(domain.decode(params, latents), 0.0, 1.0)
        return jnp.round(255.0 * images).astype(jnp.uint8)

    with domain.computation.products():
        return in_batches(draw, latents, domain.computation.batch)


@functools.partial(jax.jit, static_argnums=0)
def _sampled(
    domain: PromptedDomain[P], params: DomainParams[P], key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Measures and normalised embeddings of samples, no more at a time than for start latents."""
    latents = domain.sample(params, keys.stream(key, "spread/latents"), SAMPLES)
    cutouts = keys.stream(key, "spread/cutouts")

    def score(latents: jax.Array) -> tuple[jax.Array, jax.Array]:
        embeds = domain._embed(params, cutouts, latents)
        _, measures = scoring.prompt_distances(params.targets, embeds)
        return measures, scoring.normalize(embeds).mean(axis=0)

    size = domain.start.batch_size
    if domain.computation.splits(size):
        size = domain.computation.batch
    with domain.computation.products():
        return in_batches(score, latents, size)


def embed_images(
    graph: nnx.GraphDef[VisionTower],
    config: CLIPConfig,
    state: nnx.State | PreparedModel[VisionTower],
    images: jax.Array,
) -> jax.Array:
    """Embed images Float[B, S, S, 3] in [0, 1] by an image tower in two halves, or prepared."""
    tower = state.merge() if isinstance(state, PreparedModel) else nnx.merge(graph, state)
    return tower(normalise_pixels(config, images))


def prompted_domain(
    config: RunSettings,
    generator: Generator[P],
    weights: P,
    statistics: LatentStatistics,
    computation: Computation,
) -> PromptedDomain[P]:
    """Put a generator together with the CLIP and the prompts of a run.

    Args:
        config: the run.
        generator: makes the images.
        weights: of the generator.
        statistics: of its latents.
        computation: how images are computed and scored.

    Raises:
        CheckpointError: if the CLIP is missing, damaged or of another model.
        ValueError: if a prompt is too long.
    """
    clip, tokenizer = load_clip(config.domain.clip, computation)
    pairs = [PromptPair(axis.positive, axis.negative) for axis in config.measures]
    pairs = [PromptPair(config.objective.positive, config.objective.negative), *pairs]
    objective, *measures = embed_prompts(clip, tokenizer, pairs)
    graph, tower = nnx.split(clip.visual)
    return PromptedDomain(
        generator=generator,
        clip_graph=graph,
        clip_config=clip.cfg,
        params=DomainParams(
            generator=weights,
            clip=tower,
            targets=scoring.Targets(objective, tuple(measures)),
            statistics=statistics,
        ),
        computation=computation,
        cutouts=config.domain.cutouts,
        norm_weight=config.objective.norm_penalty,
        uniqueness_weight=config.objective.uniqueness,
        start=StartSettings(
            batches=config.search.start_batches,
            batch_size=config.search.start_batch_size,
            count=config.search.emitters,
        ),
    )
