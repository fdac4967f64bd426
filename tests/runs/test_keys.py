"""JAX's own checker finds no random key that a whole run uses twice."""

import jax
import jax.numpy as jnp
import pytest
from run_text import RUN

from qdgs_jax import keys
from qdgs_jax.datasets.generate import generate_dataset
from qdgs_jax.domains.spread import MeasureSpread
from qdgs_jax.experiments import run_experiments
from qdgs_jax.problem import FunctionProblem
from qdgs_jax.runs.config import parse_run
from qdgs_jax.runs.driver import run_search
from qdgs_jax.runs.folder import RunFolder
from qdgs_jax.runs.prepare import begin_run
from qdgs_jax.train.shapes.oracle import train_oracle

SMALL = {
    "evaluations = 20000": "evaluations = 1000",
    "cells = 50": "cells = 10",
    "images = 1000": "images = 20",
    "image_size = 32": "image_size = 8",
    "biases = [0.98, 0.95, 0.90, 0.85, 0.80]": "biases = [0.9]",
    "seeds = 5": "seeds = 2",
    "train_images = 20": "train_images = 20",
    "train_epochs = 20": "train_epochs = 1",
    "repair_epochs = 30": "repair_epochs = 1",
    "test_images = 5000": "test_images = 20",
}


class Discs(FunctionProblem):
    """Four latents drawn as a colour; the measures are the first two of them."""

    params = ()

    def sample(self, params, key, count):
        return jax.random.normal(key, (count, 4))

    def start_latents(self, params, key):
        return self.sample((), key, 8)

    def pictures(self, params, latents):
        colour = jnp.clip(127 + 99 * latents[:, :3], 0, 255).astype(jnp.uint8)
        return jnp.broadcast_to(colour[:, None, None], (len(latents), 8, 8, 3))

    def spread(self, params, key):
        self.sample((), key, 2)
        return (MeasureSpread(1.0, 1.0, 0.0, 0.1),) * 2


@pytest.fixture
def domain():
    return Discs(lambda x: (60.0 - jnp.sum(x**2, axis=-1), x[:, :2]), latent_dim=4, num_measures=2)


def a_run(path, domain):
    """Search, baseline, data sets, repair and oracle."""
    text = RUN
    for old, new in SMALL.items():
        text = text.replace(old, new)
    folder = RunFolder(path / "run")
    for each, task in begin_run(folder, parse_run(text, "run.toml"), domain, baseline=True):
        assert run_search(each, task)
        generate_dataset(each, domain)
    run_experiments(folder, lambda done, total: None)
    train_oracle(0, image_size=8, images=20, epochs=1)


@pytest.mark.full  # compiles every program of a run, with the checker in it
def test_no_key_is_used_twice_in_a_run(tmp_path, domain):
    with jax.debug_key_reuse(True):
        a_run(tmp_path, domain)


@pytest.mark.full
def test_a_key_that_is_used_twice_is_found(tmp_path, domain, monkeypatch):
    monkeypatch.setattr(
        Discs,
        "start_latents",
        lambda self, params, key: self.sample((), key, 8) + self.sample((), key, 8),
    )
    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        a_run(tmp_path, domain)


def test_streams_of_a_root_are_apart():
    root = keys.root(0)
    names = ("search", "search/start", "random", "random/start", "dataset", "repair", "oracle")
    drawn = [jax.random.key_data(keys.stream(root, name)).tobytes() for name in (*names, "spread")]
    drawn += [jax.random.key_data(key).tobytes() for key in jax.random.split(root, 64)]
    assert len(set(drawn)) == len(drawn)
