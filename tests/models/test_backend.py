"""What functions are traced for follows the device that they are lowered for."""

import jax
import jax.numpy as jnp
import pytest

from qdgs_jax.domains.evaluation import Computation
from qdgs_jax.models.backend import lowering_for, target_backend
from qdgs_jax.models.stylegan2.activations import Pixels
from qdgs_jax.models.stylegan2.resample import FASTEST, convolve_up
from qdgs_jax.runs.tables import EvaluationConfig


def test_without_a_target_it_is_the_backend_in_use():
    assert target_backend() == jax.default_backend()
    with jax.default_device(jax.devices()[0]):
        assert target_backend() == jax.devices()[0].platform


@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
def test_settings_follow_the_target(backend):
    with lowering_for(backend):
        assert target_backend() == backend
        assert Computation.of(EvaluationConfig()) == Computation.of(EvaluationConfig(), backend)
    assert target_backend() == jax.default_backend()


def test_a_trace_for_one_backend_is_not_taken_for_another():
    up = jax.jit(lambda x, kernel: convolve_up(Pixels(x), kernel).unfold())
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1, 4, 4, 2), (3, 3, 2, 2))]
    here = str(up.trace(*shapes).jaxpr)
    with lowering_for("tpu"):
        there = str(up.trace(*shapes).jaxpr)
    assert (here == there) == ("cpu" not in FASTEST)
    assert str(up.trace(*shapes).jaxpr) == here
