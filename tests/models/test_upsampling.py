"""Upsampling convolutions against their definition, and as linear maps."""

from __future__ import annotations

import contextlib

import jax
import numpy as np
import pytest
import stylegan2_by_definition as definition
import synthetic
from jax import lax

from qdgs_jax.models.stylegan2 import resample
from qdgs_jax.models.stylegan2.activations import Pixels
from qdgs_jax.models.stylegan2.resample import UPSAMPLERS, convolve_up, smooth_up

SIDES = [(1, 1), (3, 5)]


@pytest.mark.parametrize("method", [*UPSAMPLERS, "auto"])
def test_upsampling_convolutions_agree_with_the_definition(method):
    rng = np.random.default_rng(1)
    kernel = rng.standard_normal((3, 3, 3, 4))
    images = [rng.standard_normal((2, *sides, 3)) for sides in SIDES]
    up = jax.jit(
        lambda images, kernel: [convolve_up(Pixels(x), kernel, method).unfold() for x in images]
    )
    found = up(*jax.tree.map(np.float32, (images, kernel)))
    turned = kernel.transpose(3, 2, 0, 1)
    for x, ours in zip(images, found, strict=True):
        expected = [definition.convolve_up(s.transpose(2, 0, 1), turned) for s in x]
        assert synthetic.error(ours, definition.nhwc(np.stack(expected))) <= 1e-5


@pytest.mark.parametrize("method", UPSAMPLERS)
def test_upsampling_convolutions_pull_back_what_linear_maps_do(method):
    rng = np.random.default_rng(3)

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    kernel, dkernel = normal(3, 3, 3, 4), normal(3, 3, 3, 4)
    images = [
        [normal(2, *sides, 3), normal(2, *sides, 3), normal(2, *(2 * s for s in sides), 4)]
        for sides in SIDES
    ]

    @jax.jit
    def all_of_it(images, kernel, dkernel):
        def up(x, kernel):
            return [convolve_up(Pixels(each), kernel, method).unfold() for each in x]

        x, dx, cotangent = map(list, zip(*images, strict=True))
        pull_back = jax.vjp(up, x, kernel)[1]
        return *pull_back(cotangent), up(dx, kernel), up(x, dkernel)

    to_x, to_kernel, *mapped = jax.device_get(all_of_it(images, kernel, dkernel))
    # The map is linear in each argument: <pull_back(c), d> = <c, map(d)>.
    _, dx, cotangents = zip(*images, strict=True)
    by_image = [[np.vdot(c, y) for c, y in zip(cotangents, ys, strict=True)] for ys in mapped]
    found = [*map(np.vdot, to_x, dx), np.vdot(to_kernel, dkernel)]
    wanted = [*by_image[0], sum(by_image[1])]
    assert found == pytest.approx(wanted, rel=1e-4, abs=1e-3)


def test_image_upsampling_agrees_with_the_definition():
    x = np.random.default_rng(2).standard_normal((2, 3, 5, 3))
    expected = [definition.upsample(sample.transpose(2, 0, 1)) for sample in x]
    found = jax.jit(smooth_up, static_argnums=1)(x.astype(np.float32), (1, 2))
    assert synthetic.error(found, definition.nhwc(np.stack(expected))) <= 1e-5


@pytest.mark.parametrize(
    ("kind", "wanted", "products"),
    [("tpu", None, "HIGH"), ("tpu", "high", "HIGH"), ("tpu", "highest", "HIGHEST")]
    + [(kind, None, "HIGHEST") for kind in ("cpu", "gpu")],
)
def test_images_are_upsampled_with_sixteen_bits_or_all(kind, wanted, products, monkeypatch):
    """A TPU's default of eight would show, whatever the precision of the networks."""
    monkeypatch.setattr(resample, "target_backend", lambda: kind)
    with jax.default_matmul_precision(wanted) if wanted else contextlib.nullcontext():
        program = jax.make_jaxpr(lambda x: smooth_up(x, (1, 2)))(np.zeros((1, 4, 4, 3), np.float32))
    found = [e.params["precision"] for e in program.eqns if e.primitive.name == "dot_general"]
    assert found == [(lax.Precision[products],) * 2] * 2
