"""Commands on a toy domain, whose searches take moments: for the tests of the command line."""

import functools
import os
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
from run_text import RUN

import qdgs_jax.domains
import qdgs_jax.search
from qdgs_jax.cli import app, console
from qdgs_jax.problem import FunctionProblem
from qdgs_jax.search import Search

EVALUATIONS = 1160  # 520 for the start latents, then 20 steps of 32


def qdgs(*arguments):
    """Run a command in this process and return its exit code."""
    return console.guarded(lambda: app([str(a) for a in arguments]))


def run_program(code, *arguments, **environment):
    """Run Python code in a process of its own, with these arguments and variables."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        env={**os.environ, **environment},
        timeout=120,
    )


class Spread(NamedTuple):
    """What a measure's prompts are worth: its labels are noise within `margin`."""

    text: str | None = None
    margin: float = 0.02
    beyond: str | None = None

    def warning(self):
        return self.text

    def range_warning(self, low, high, cells):
        return self.beyond


class ToyDomain(FunctionProblem):
    """Four latents drawn as an even colour; the measures are the first two of them."""

    params = ()
    spreads = (Spread(), Spread())

    @functools.partial(jax.jit, static_argnums=(0, 3))
    def sample(self, params, key, count):
        return 0.01 * jax.random.normal(key, (count, 4))

    def start_latents(self, params, key):
        return self.sample(params, key, 8)

    @functools.partial(jax.jit, static_argnums=0)
    def pictures(self, params, latents):
        colour = jnp.round(255 * jnp.clip(0.5 + latents[:, :3], 0.0, 1.0)).astype(jnp.uint8)
        return jnp.broadcast_to(colour[:, None, None], (len(latents), 16, 16, 3))

    def spread(self, params, key):
        return self.spreads


def scores(latents):
    """Objectives and measures of the toy domain."""
    return 60.0 - jnp.sum(latents**2, axis=-1), latents[:, :2]


TOY = ToyDomain(scores, latent_dim=4, num_measures=2)


def toy_domain(config):
    """What stands in for `load_domain`: one for all, so that searches of it can be shared."""
    return TOY


@functools.cache
def _search(problem, emitter, make, settings, **options):
    create_archive = functools.partial(make, **dict(settings))
    return Search(problem, emitter, create_archive=create_archive, **options)


def _shared_search(problem, emitter, *, create_archive, **options):
    settings = tuple(create_archive.keywords.items())
    try:
        hash(settings)
    except TypeError:  # centroids of an archive of cells of any shape
        return Search(problem, emitter, create_archive=create_archive, **options)
    return _search(problem, emitter, create_archive.func, settings, **options)


def play(patch, load=toy_domain):
    """Let commands search a toy; those of equal settings share a `Search`, compiled once."""
    patch.setattr(qdgs_jax.domains, "load_domain", load)
    patch.setattr(qdgs_jax.search, "Search", _shared_search)


def write_run(path, algorithm="cma_maega", **changes):
    """A run file with a small budget, an algorithm and the given changes."""
    text = RUN
    for old, new in {
        "evaluations = 20000": f"evaluations = {EVALUATIONS}",
        "chunk = 25": "chunk = 5",
        "cells = 50": "cells = 10",
        "images = 1000": "images = 30",
        "bins = [4, 4]": "bins = [2, 2]",
        "image_size = 32": "image_size = 16",
        '"cma_maega"': f'"{algorithm}"',
        **changes,
    }.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path
