"""Weights that are prepared once for all steps of a program."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from domain_settings import settings
from faces_run import RUN, port_generator, write_clip
from jax.extend import core

from qdgs_jax.domains import load_domain
from qdgs_jax.models.backend import lowering_for
from qdgs_jax.problem import FunctionProblem, Prepares
from qdgs_jax.runs.config import baseline_of
from qdgs_jax.runs.prepare import prepare_search
from qdgs_jax.targets.abstract import abstract_domain
from qdgs_jax.targets.sizes import SIZES

LARGE = 2**18  # numbers; the smallest kernel of 512 channels to 512 has as many
REPEATS = ("broadcast_in_dim", "reshape", "squeeze", "slice")


def parts_of(equation: Any) -> Iterator[Any]:
    """The programs inside an operation whose arguments are its own."""
    for value in equation.params.values():
        inner = value.jaxpr if isinstance(value, core.ClosedJaxpr) else value
        if isinstance(inner, core.Jaxpr) and len(inner.invars) == len(equation.invars):
            yield inner


def operations(jaxpr: Any, fixed: dict[Any, int]) -> Iterator[tuple[Any, list[int | None]]]:
    """Operations of a program and of its parts, each with where its operands come from.

    Args:
        jaxpr: a program.
        fixed: numbers in the largest array of weights that each fixed variable comes of.

    Yields:
        An operation and, for each operand, that number: 0 for a literal, None for what does not
        come of weights alone.
    """
    fixed = dict(fixed)
    for equation in jaxpr.eqns:
        sizes = [0 if isinstance(v, core.Literal) else fixed.get(v) for v in equation.invars]
        yield equation, sizes
        for inner in parts_of(equation):
            yield from operations(inner, fixed_of(inner.invars, sizes))
        known = [size for size in sizes if size is not None]
        if known and len(known) == len(sizes):
            fixed |= dict.fromkeys(equation.outvars, max(known))


def fixed_of(variables: list[Any], sizes: list[int | None]) -> dict[Any, int]:
    """The fixed ones of the variables."""
    return {v: size for v, size in zip(variables, sizes, strict=True) if size is not None}


def computed_again(jaxpr: Any, fixed: dict[Any, int]) -> Iterator[str]:
    """Operations on what is fixed and comes of large arrays; not what only repeats them."""
    for equation, sizes in operations(jaxpr, fixed):
        name = equation.primitive.name
        if name in REPEATS or None in sizes or any(parts_of(equation)):
            continue
        if max(sizes, default=0) >= LARGE:
            yield f"{name} {[v.aval.str_short() for v in equation.outvars]}"


@pytest.fixture(scope="module")
def few_layers(tmp_path_factory):
    """Files of settings: layers as wide as those of the true networks, of each kind one or two."""
    folder = tmp_path_factory.mktemp("sizes")
    clip = SIZES["clip"]["vit-b-32"]
    few = {
        "generator": dataclasses.replace(
            SIZES["stylegan2"]["ffhq-256"], resolution=16, channels=(512, 256, 128)
        ),
        "clip": dataclasses.replace(clip, vision=dataclasses.replace(clip.vision, layers=1)),
    }
    for name, cfg in few.items():
        (folder / f"{name}.json").write_text(json.dumps(cfg.to_dict()))
    return {name: str(folder / f"{name}.json") for name in few}


@pytest.mark.parametrize(
    ("kind", "dtype", "whole"),
    [("cpu", "float32", False), ("gpu", "bfloat16", False), ("tpu", "bfloat16", True)],
)
def test_no_step_computes_again_what_depends_on_weights_alone(kind, dtype, whole, few_layers):
    """Of the search of faces; at its true size on a TPU, whose levels and blocks differ."""
    named = {"generator": "ffhq-256", "clip": "vit-b-32"} if whole else few_layers
    config = settings(RUN, domain=named, evaluation={"dtype": dtype})
    task = prepare_search(config, abstract_domain(config, kind))
    latents = jax.ShapeDtypeStruct((task.num_start, task.search.problem.latent_dim), jnp.float32)
    with lowering_for(kind):
        state = jax.eval_shape(task.search.init, latents, task.key, params=task.params)
        program = jax.make_jaxpr(task.search._steps)(task.params, state)
    weights = program.jaxpr.invars[: len(jax.tree.leaves(task.params))]
    fixed = {v: v.aval.size for v in weights} | dict.fromkeys(program.jaxpr.constvars, 0)
    ((loop, sizes),) = (
        (equation, sizes)
        for equation, sizes in operations(program.jaxpr, fixed)
        if equation.primitive.name == "scan" and equation.params["length"] == task.search.chunk
    )
    (body,) = parts_of(loop)
    assert len(body.eqns) > 500
    assert sorted(computed_again(body, fixed_of(body.invars, sizes))) == []


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    chosen = {"generator": str(port_generator(folder)), "clip": str(write_clip(folder))}
    return load_domain(settings(RUN, domain=chosen))


@pytest.fixture(scope="module")
def latents(domain):
    sample = jax.jit(domain.sample, static_argnums=2)
    return np.asarray(sample(domain.params, jax.random.key(0), 16))


def test_scores_and_jacobians_are_those_of_the_weights(domain, latents):
    key = jax.random.key(1)

    def score(prepared):
        def found(params):
            params = domain.prepare_weights(params) if prepared else params
            return domain.evaluate_with_jacobian(params, domain.init_state(), latents[:3], key)

        return jax.jit(found)(domain.params)

    for ours, theirs in zip(*map(jax.tree.leaves, (score(True), score(False))), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_problem_need_not_prepare_anything(domain):
    assert isinstance(domain, Prepares)
    assert not isinstance(FunctionProblem(lambda x: (x[:, 0], x), 2, 2), Prepares)


@pytest.mark.filterwarnings("ignore::qdgs_jax.search_doubts.SearchWarning")
def test_random_sampling_is_handed_weights_that_it_can_sample_from(domain, latents):
    small = {"emitters": 2, "evaluations": 40, "start_batches": 4, "start_batch_size": 4}
    task = prepare_search(baseline_of(settings(RUN, search={**small, "chunk": 2})), domain)
    state = task.search.init(latents[: task.num_start], task.key, params=task.params)
    state, metrics = task.search.run(state, 2, params=task.params)
    assert state.evaluations == task.num_start + 2 * task.step_evaluations
    assert metrics["rejected"] == 0
