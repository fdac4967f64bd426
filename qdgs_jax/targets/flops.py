"""Useful floating-point operations of a step: those of the networks, each product once.

XLA counts them in the functions as JAX lowers them, without recomputation and all latents at once.
The count is that for a processor whatever the target, so that a way to compute that needs more
operations does not look useful. XLA takes the body of a loop once: its further turns are added.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from qdgs_jax.domains.cutouts import random_cutouts
from qdgs_jax.domains.evaluation import Computation
from qdgs_jax.domains.prompted import PromptedDomain, embed_images
from qdgs_jax.models.backend import lowering_for
from qdgs_jax.problem import pull_back_outputs


def counted(function: Callable[..., Any], *shapes: Any) -> float:
    """Floating-point operations of a function of arrays of some shapes; nothing is compiled."""
    with lowering_for("cpu"):
        traced = jax.jit(function).trace(*shapes)
        analysis: Any = traced.lower().cost_analysis()
        return float(analysis["flops"]) + _further_turns(traced.jaxpr.jaxpr)


def _further_turns(program: Any) -> float:
    """Operations of all turns of loops but the first, the loops inside their bodies included."""
    total = 0.0
    for equation in program.eqns:
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            if not hasattr(inner, "eqns"):
                continue
            if equation.primitive.name != "scan":
                total += _further_turns(getattr(inner, "jaxpr", inner))
                continue
            turns: int = equation.params["length"]
            body = core.jaxpr_as_fun(inner)
            shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in inner.jaxpr.invars]  # type: ignore[no-untyped-call]
            once: Any = jax.jit(body).lower(*shapes).cost_analysis()
            further = _further_turns(inner.jaxpr)
            total += (turns - 1) * float(once["flops"]) + turns * further
    return total


def evaluation_flop(domain: PromptedDomain[Any]) -> tuple[float, float]:
    """Operations of the networks for one latent: evaluated, and with the Jacobian of all outputs.

    Args:
        domain: loaded, or of shapes alone.
    """
    outputs = 1 + domain.num_measures
    domain = dataclasses.replace(domain, computation=Computation())

    def embed(params: Any, latents: jax.Array) -> jax.Array:
        images = domain.decode(params, latents)
        size = domain.clip_config.image_size
        pieces = random_cutouts(images, jax.random.key(0), domain.cutouts, size)
        flat = pieces.reshape(-1, *pieces.shape[2:])
        embeds = embed_images(domain.clip_graph, domain.clip_config, params.clip, flat)
        return embeds.reshape(*pieces.shape[:2], -1).mean(axis=0)

    def differentiate(params: Any, latents: jax.Array) -> Any:
        def scores(latents: jax.Array) -> tuple[jax.Array, jax.Array]:
            embeds = embed(params, latents)
            return embeds[:, 0], embeds[:, 1:outputs]

        found, pull_back = jax.vjp(scores, latents)
        return found, pull_back_outputs(pull_back, *found)

    latent = jax.ShapeDtypeStruct((1, domain.latent_dim), jnp.float32)  # type: ignore[no-untyped-call]
    once = counted(embed, domain.params, latent)
    return once, counted(differentiate, domain.params, latent)


def picture_flop(domain: PromptedDomain[Any]) -> float:
    """Operations of the generator for one picture."""
    domain = dataclasses.replace(domain, computation=Computation())
    latent = jax.ShapeDtypeStruct((1, domain.latent_dim), jnp.float32)  # type: ignore[no-untyped-call]
    return counted(domain.decode, domain.params, latent)
