"""Margin heads against what the published programs computed, and cut over devices."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import synthetic
from flax import nnx

from qdgs_jax.models.variables import Buffer
from qdgs_jax.train.faces.heads import HeadConfig, MarginHead, cross_entropy, head_sharding

REFERENCE = synthetic.load_reference("recognition", "heads")
HEADS = ("adaface", "adaface_ema", "cosface", "arcface")


def golden_head(case: str, name: str) -> MarginHead:
    """The head of a case with its kernel, in the precision of the moment."""
    kernel = REFERENCE[f"{case}.kernel"]
    cfg = HeadConfig(
        *kernel.shape, kind=name.removesuffix("_ema"), t_alpha=0.01 if "ema" in name else 1.0
    )
    head = MarginHead(cfg, rngs=nnx.Rngs(0))
    head.kernel[...] = jnp.asarray(kernel)
    return head


def two_steps(head: MarginHead, case: str) -> list[dict[str, Any]]:
    """What a head gives and keeps, for the batch of a case twice."""
    batch = [jnp.asarray(REFERENCE[f"{case}.{key}"]) for key in ("embedding", "norm", "label")]
    graph, params, buffers = nnx.split(head, nnx.Param, Buffer)

    @jax.jit
    def step(buffers: Any) -> Any:
        def loss(params: Any, embeddings: Any) -> Any:
            moving = nnx.merge(graph, params, buffers, copy=True)
            logits = moving(embeddings, *batch[1:])
            return cross_entropy(logits, batch[2]), (logits, nnx.state(moving, Buffer))

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, batch[0])

    found = []
    for _ in range(2):
        (loss, (logits, buffers)), (kernel, embedding) = step(buffers)
        each = {"loss": loss, "logits": logits, "grad_embedding": embedding}
        each["grad_kernel"] = kernel["kernel"][...]
        if head.cfg.kind == "adaface":
            each["batch_mean"] = buffers["norm_mean"][...][None]
            each["batch_std"] = buffers["norm_deviation"][...][None]
        found.append(each)
    return found


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("case", ["small", "wide"])
@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
def test_two_steps_agree_with_the_published_heads(case, name, x64):
    with jax.enable_x64(x64):
        found = two_steps(golden_head(case, name), case)
    for number, step in enumerate(found, start=1):
        for key, value in step.items():
            wanted = REFERENCE[f"{case}.{name}.step{number}.{key}"]
            assert value.dtype == (np.float64 if x64 else np.float32), key
            assert synthetic.error(value, wanted) <= (1e-10 if x64 else 1e-5), (number, key)
            if x64:
                np.testing.assert_allclose(value, wanted, rtol=1e-10, err_msg=key)


def test_padding_changes_neither_logits_nor_loss():
    plain, case = golden_head("small", "arcface"), "small"
    padded = MarginHead(HeadConfig(16, 10, "arcface", shards=4), rngs=nnx.Rngs(1))
    assert padded.kernel.shape == (16, 12)
    padded.kernel[...] = padded.kernel[...].at[:, :10].set(plain.kernel[...])
    found, wanted = two_steps(padded, case)[0], two_steps(plain, case)[0]
    assert np.isneginf(found["logits"][:, 10:]).all()
    assert not found["grad_kernel"][:, 10:].any()
    np.testing.assert_allclose(found["logits"][:, :10], wanted["logits"], rtol=1e-6)
    np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-6)
    assert synthetic.error(found["grad_kernel"][:, :10], wanted["grad_kernel"]) <= 1e-6


SHARDED = """
import jax, numpy as np
from flax import nnx
from qdgs_jax.models.variables import Buffer
from qdgs_jax.train.faces.heads import HeadConfig, MarginHead, cross_entropy, head_sharding

assert len(jax.devices()) == 2
mesh = jax.make_mesh((2,), ("classes",), axis_types=(jax.sharding.AxisType.Auto,))
rng = np.random.default_rng(0)
vectors = rng.standard_normal((16, 8)).astype(np.float32)
norms = np.linalg.norm(vectors, axis=1, keepdims=True)
labels = np.arange(16) % 7
head = MarginHead(HeadConfig(8, 7, shards=2), rngs=nnx.Rngs(0))
shardings = head_sharding(head, mesh, "classes")
graph = nnx.graphdef(head)

def step(state):
    def loss(kernel):
        moving = nnx.merge(graph, state, copy=True)
        moving.kernel[...] = kernel
        value = cross_entropy(moving(vectors / norms, norms, labels), labels)
        return value, nnx.state(moving, Buffer)
    (value, buffers), gradient = jax.value_and_grad(loss, has_aux=True)(state["kernel"][...])
    return value, gradient, buffers

cut = jax.jit(step).lower(jax.device_put(nnx.state(head), shardings)).compile()
value, gradient, buffers = cut(jax.device_put(nnx.state(head), shardings))
assert gradient.sharding.is_equivalent_to(shardings["kernel"].get_value(), 2), gradient.sharding
assert {s.data.shape for s in gradient.addressable_shards} == {(8, 4)}
assert "all-gather" not in cut.as_text(), "logits or directions travelled"
one = jax.jit(step)(nnx.state(head))
for found, wanted in zip(jax.tree.leaves((value, gradient, buffers)), jax.tree.leaves(one)):
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
print("equal")
"""


def test_a_head_cut_over_two_devices_learns_as_on_one():
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SHARDED],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "equal\n", done.stderr


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="'sphereface'"):
        HeadConfig(8, 10, "sphereface")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"num_classes 0"):
        HeadConfig(8, 0)
    with pytest.raises(ValueError, match=r"t_alpha 2\.0"):
        HeadConfig(8, 10, t_alpha=2.0)
    with pytest.raises(ValueError, match=r"margin is -0\.1"):
        HeadConfig(8, 10, margin=-0.1)
    head = MarginHead(HeadConfig(8, 10), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"\(1, 8\).*at least 2"):
        head(jnp.ones((1, 8)), jnp.ones((1, 1)), jnp.zeros(1, jnp.int32))
    with pytest.raises(ValueError, match=r"norms \(4,\)"):
        head(jnp.ones((4, 8)), jnp.ones(4), jnp.zeros(4, jnp.int32))
    mesh = jax.sharding.AbstractMesh((3,), ("classes",))
    with pytest.raises(ValueError, match="shards=3"):
        head_sharding(head, mesh, "classes")  # type: ignore[arg-type]
