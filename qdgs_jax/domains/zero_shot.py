"""What CLIP sees in images: of each attribute the group whose texts are nearest, and measures.

Images are scored whole, without random cutouts, so that the same image always gets the same answer.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.struct import PyTreeNode

from qdgs_jax.domains.cutouts import middle_square
from qdgs_jax.domains.evaluation import Computation
from qdgs_jax.domains.prompted import embed_images
from qdgs_jax.domains.prompts import embed_texts, encode_texts
from qdgs_jax.domains.protocol import RunSettings
from qdgs_jax.domains.scoring import PromptAxis, geodesic_distance
from qdgs_jax.domains.weights import checkpoint_folder, load_clip, load_tokenizer
from qdgs_jax.models.clip import CLIP, CLIPConfig, VisionTower
from qdgs_jax.ports.model_folder import load_config
from qdgs_jax.ports.registry import kind_of

Attributes = Mapping[str, Mapping[str, Sequence[str]]]  # attribute -> group -> texts


class Seen(NamedTuple):
    """What somebody sees in images.

    Attributes:
        groups: Int[B, A], group of each attribute, -1 where it is unclear.
        measures: Float[B, M]; M = 0 for whoever measures nothing.
    """

    groups: jax.Array
    measures: jax.Array


class Targets(PyTreeNode):  # type: ignore[no-untyped-call]
    """Weights and embedded texts.

    Attributes:
        clip: weights of CLIP's image tower.
        measures: one axis per measure.
        groups: for each attribute and group Float[texts, E].
    """

    clip: nnx.State
    measures: tuple[PromptAxis, ...]
    groups: tuple[tuple[jax.Array, ...], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class ZeroShot:
    """CLIP, with texts to choose from.

    Attributes:
        groups: names of each attribute's groups.
        graph: structure of CLIP's image tower.
        config: its sizes.
        params: what belongs into the arguments.
        computation: how images are scored.
    """

    groups: Mapping[str, tuple[str, ...]]
    graph: nnx.GraphDef[VisionTower]
    config: CLIPConfig
    params: Targets
    computation: Computation

    def look(self, pictures: np.ndarray) -> Seen:
        """Look at pictures UInt8[B, H, W, 3]; of groups equally near the first is seen."""
        return _look(self, self.params, jnp.asarray(pictures))


@functools.partial(jax.jit, static_argnums=0)
def _look(eye: ZeroShot, params: Targets, pictures: jax.Array) -> Seen:
    with eye.computation.products():
        images = middle_square(pictures.astype(jnp.float32) / 255.0, eye.config.image_size)
        embeds = embed_images(eye.graph, eye.config, params.clip, images)
    count = len(pictures)
    measures = [axis.distance(embeds) for axis in params.measures]
    nearest = [
        jnp.argmin(jnp.stack([_distance(embeds, texts) for texts in groups]), axis=0)
        for groups in params.groups
    ]
    return Seen(
        jnp.stack(nearest, axis=-1) if nearest else jnp.zeros((count, 0), jnp.int32),
        jnp.stack(measures, axis=-1) if measures else jnp.zeros((count, 0)),
    )


def _distance(embeds: jax.Array, texts: jax.Array) -> jax.Array:
    """Mean distance Float[B] of embeddings Float[B, E] to texts Float[T, E]."""
    return geodesic_distance(embeds[:, None, :], texts).mean(axis=-1)


def check_attributes(config: RunSettings, attributes: Attributes) -> None:
    """Refuse texts of groups that a run's CLIP cannot read; no weights are loaded.

    Raises:
        CheckpointError: the CLIP is missing or of another model.
        ValueError: a text is too long; its attribute and group are named.
    """
    if not attributes:
        return
    folder = checkpoint_folder(config.domain.clip)
    cfg, tokenizer = kind_of(CLIP).read_config(load_config(folder)), load_tokenizer(folder)
    for name, groups in attributes.items():
        for group, texts in groups.items():
            try:
                encode_texts(cfg, tokenizer, texts)
            except ValueError as error:
                raise ValueError(f"audit.{name}.{group}: {error}") from None


def load_zero_shot(config: RunSettings, attributes: Attributes) -> ZeroShot:
    """Load a run's CLIP, and embed the prompts of its measures and the texts of groups.

    Args:
        config: the run; its generator is not loaded.
        attributes: may be empty.

    Raises:
        CheckpointError: the CLIP is missing, damaged or of another model.
        ValueError: a text is too long.
    """
    computation = Computation.of(config.evaluation)
    clip, tokenizer = load_clip(config.domain.clip, computation)
    ends = [side for axis in config.measures for side in (axis.positive, axis.negative)]
    texts = [tuple(texts) for groups in attributes.values() for texts in groups.values()]
    embedded = iter(embed_texts(clip, tokenizer, [*ends, *texts]))
    measures = tuple(PromptAxis(next(embedded), next(embedded)) for _ in config.measures)
    graph, tower = nnx.split(clip.visual)
    return ZeroShot(
        groups={name: tuple(groups) for name, groups in attributes.items()},
        graph=graph,
        config=clip.cfg,
        params=Targets(
            clip=tower,
            measures=measures,
            groups=tuple(tuple(next(embedded) for _ in each) for each in attributes.values()),
        ),
        computation=computation,
    )
