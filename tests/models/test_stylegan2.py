"""StyleGAN2 against the reference data, against its definition, and its promises on form."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stylegan2_by_definition as definition
import synthetic
from flax import nnx

from qdgs_jax.models.stylegan2 import Generator, StyleGAN2Config
from qdgs_jax.models.stylegan2.activations import Pixels
from qdgs_jax.models.stylegan2.resample import UPSAMPLERS, convolve_up, smooth_up
from qdgs_jax.ports.families.stylegan2_names import NVIDIA_IGNORED, NVIDIA_RULES

TOLERANCE = 1e-4
SHARED = Path(os.environ.get("QDGS_SHARED", synthetic.DATA.parent.parent.parent / "shared"))
WHOLE_IMAGES = SHARED / "fixtures/reference/stylegan2_ffhq256.npz"
TINY = StyleGAN2Config(8, (4, 3), z_dim=5, w_dim=6, mapping_layers=1)


def config_of(manifest: dict[str, Any]) -> StyleGAN2Config:
    given, options = manifest["config"], manifest["config"]["synthesis_kwargs"]
    return StyleGAN2Config.from_base(
        given["img_resolution"],
        options["channel_base"],
        options["channel_max"],
        z_dim=given["z_dim"],
        c_dim=given["c_dim"],
        w_dim=given["w_dim"],
        img_channels=given["img_channels"],
        mapping_layers=given["mapping_kwargs"]["num_layers"],
        conv_clamp=options["conv_clamp"],
    )


def load(cfg: StyleGAN2Config, weights: dict[str, np.ndarray], **policy: Any) -> Generator:
    def build() -> Generator:
        return Generator(cfg, rngs=nnx.Rngs(0), **policy)

    return synthetic.load(build, weights, NVIDIA_RULES, NVIDIA_IGNORED)


def synthesise(generator: Generator, ws: Any, noise: str = "const") -> jax.Array:
    graph, params = nnx.split(generator)
    return jax.jit(lambda p, w: nnx.merge(graph, p).synthesis(w, noise=noise))(params, ws)


def nhwc(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 2, 3, 1)


def primitives(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for sub in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(sub, "jaxpr", sub)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


@pytest.fixture(scope="module")
def small() -> tuple[StyleGAN2Config, dict[str, np.ndarray], dict[str, np.ndarray]]:
    manifest = synthetic.load_manifest("stylegan2", "stylegan2_small")
    weights = synthetic.weights(manifest)
    synthetic.check(manifest, weights)
    return config_of(manifest), weights, synthetic.load_reference("stylegan2", "stylegan2_small")


@pytest.fixture(scope="module")
def cond() -> tuple[StyleGAN2Config, dict[str, np.ndarray], dict[str, np.ndarray]]:
    manifest = synthetic.load_manifest("stylegan2", "stylegan2_cond")
    weights = synthetic.weights(manifest)
    synthetic.check(manifest, weights)
    return config_of(manifest), weights, synthetic.load_reference("stylegan2", "stylegan2_cond")


@pytest.mark.parametrize(
    ("array", "truncation"),
    [
        ("ws_psi1", {}),
        ("ws_psi07", {"psi": 0.7}),
        ("ws_psi07_cutoff4", {"psi": 0.7, "cutoff": 4}),
    ],
)
def test_mapping_agrees_with_the_original(small, array, truncation):
    cfg, weights, reference = small
    ws = load(cfg, weights).mapping(reference["z"], **truncation)
    assert synthetic.error(ws, reference[array]) <= TOLERANCE


@pytest.mark.parametrize(("array", "psi"), [("ws", 1.0), ("ws_psi07", 0.7)])
def test_mapping_of_classes_agrees_with_the_original(cond, array, psi):
    cfg, weights, reference = cond
    ws = load(cfg, weights).mapping(reference["z"], reference["c"], psi=psi)
    assert synthetic.error(ws, reference[array]) <= TOLERANCE


# Pixels in their places, and squares of four in the channels.
PLACES = pytest.mark.parametrize("upsampling", ["phases", "subpixel"])


@PLACES
def test_images_and_their_gradients_layer_by_layer_agree_with_the_original(small, upsampling):
    cfg, weights, reference = small
    graph, params = nnx.split(load(cfg, weights, upsampling=upsampling))
    cotangent = nhwc(reference["cotangent"])

    def loss(ws, params):
        images = nnx.merge(graph, params).synthesis(ws)
        return jnp.sum(images * cotangent), images

    gradient, images = jax.jit(jax.grad(loss, has_aux=True))(reference["ws_psi07"], params)
    assert synthetic.error(images, nhwc(reference["image_const"])) <= TOLERANCE
    assert synthetic.error(gradient, reference["grad_ws"]) <= TOLERANCE


def test_images_without_noise_agree_with_the_original(small):
    cfg, weights, reference = small
    images = synthesise(load(cfg, weights), reference["ws_psi07"], "none")
    assert synthetic.error(images, nhwc(reference["image_none"])) <= TOLERANCE


@PLACES
@pytest.mark.parametrize(("array", "clamp"), [("image_const", 256.0), ("image_const_clamp1", 1.0)])
def test_clamped_images_agree_with_the_original(cond, array, clamp, upsampling):
    cfg, weights, reference = cond
    clamped = dataclasses.replace(cfg, conv_clamp=clamp)
    generator = load(clamped, weights, upsampling=upsampling)
    assert (
        synthetic.error(synthesise(generator, reference["ws"]), nhwc(reference[array])) <= TOLERANCE
    )


def weights_of(architecture: str, cond_weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights for another architecture: residual projections, and only the last RGB head."""
    weights = dict(cond_weights)
    for resolution in (4, 8):
        if architecture != "skip":
            for name in [n for n in weights if n.startswith(f"synthesis.b{resolution}.torgb.")]:
                del weights[name]
    if architecture == "resnet":
        manifest = synthetic.load_manifest("stylegan2", "stylegan2_cond")
        for resolution in (8, 16):
            name = f"synthesis.b{resolution}.skip.weight"
            recipe = {"name": name, "shape": [64, 64, 1, 1], "mean": 0, "std": 1}
            weights[name] = synthetic.draw(manifest, recipe)
    return weights


@PLACES
@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_architectures_follow_the_definition_with_a_code_per_layer(cond, architecture, upsampling):
    cfg, cond_weights, _ = cond
    weights = weights_of(architecture, cond_weights)
    cfg = dataclasses.replace(cfg, architecture=architecture, conv_clamp=2.0)
    ws = np.random.default_rng(0).standard_normal((2, cfg.num_ws, cfg.w_dim)).astype(np.float32)
    images = synthesise(load(cfg, weights, upsampling=upsampling), ws)
    by_definition = definition.Synthesis(weights, architecture, clamp=2.0)
    expected = np.stack([by_definition(codes) for codes in ws.astype(np.float64)])
    assert synthetic.error(images, nhwc(expected)) <= TOLERANCE


def test_definition_agrees_with_the_original(cond):
    _, weights, reference = cond
    by_definition = definition.Synthesis(weights, "skip", clamp=1.0)
    image = by_definition(reference["ws"][1].astype(np.float64))
    assert synthetic.error(image, reference["image_const_clamp1"][1]) <= 1e-6


@pytest.mark.parametrize("method", [*UPSAMPLERS, "auto"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5)])
def test_upsampling_convolutions_agree_with_the_definition(method, shape):
    rng = np.random.default_rng(1)
    x, kernel = rng.standard_normal((2, *shape, 3)), rng.standard_normal((3, 3, 3, 4))
    expected = [
        definition.convolve_up(s.transpose(2, 0, 1), kernel.transpose(3, 2, 0, 1)) for s in x
    ]
    up = jax.jit(lambda x, kernel: convolve_up(Pixels(x), kernel, method).unfold())
    found = up(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32))
    assert synthetic.error(found, nhwc(np.stack(expected))) <= 1e-5


@pytest.mark.parametrize("method", UPSAMPLERS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5)])
def test_upsampling_convolutions_pull_back_what_linear_maps_do(method, shape):
    draws = jax.random.split(jax.random.key(3), 5)
    x, dx = (jax.random.normal(key, (2, *shape, 3)) for key in draws[:2])
    kernel, dkernel = (jax.random.normal(key, (3, 3, 3, 4)) for key in draws[2:4])

    @jax.jit
    def up(x, kernel):
        return convolve_up(Pixels(x), kernel, method).unfold()

    cotangent = jax.random.normal(draws[4], jax.eval_shape(up, x, kernel).shape)
    pull_back = jax.jit(lambda x, kernel, pulled: jax.vjp(up, x, kernel)[1](pulled))
    to_x, to_kernel = pull_back(x, kernel, cotangent)
    # The map is linear in each argument: <pull_back(c), d> = <c, map(d)>.
    for pulled, change, image in (
        (to_x, dx, up(dx, kernel)),
        (to_kernel, dkernel, up(x, dkernel)),
    ):
        assert float(jnp.vdot(pulled, change)) == pytest.approx(
            float(jnp.vdot(cotangent, image)), rel=1e-4, abs=1e-3
        )


def test_image_upsampling_agrees_with_the_definition():
    x = np.random.default_rng(2).standard_normal((2, 3, 5, 3))
    expected = [definition.upsample(sample.transpose(2, 0, 1)) for sample in x]
    assert synthetic.error(smooth_up(jnp.asarray(x), (1, 2)), nhwc(np.stack(expected))) <= 1e-5


@pytest.mark.parametrize("differentiate", [False, True])
def test_every_convolution_is_one_ordinary_batched_convolution(small, differentiate):
    cfg, weights, reference = small
    generator = load(cfg, weights, upsampling="phases")

    def pull_back(ws, cotangents):
        _, pull = jax.vjp(generator.synthesis, ws)
        return jax.vmap(pull)(cotangents)

    ws = jnp.asarray(reference["ws_psi07"])
    if differentiate:
        jaxpr = jax.make_jaxpr(pull_back)(ws, jnp.ones((5, 4, 32, 32, 3)))
    else:
        jaxpr = jax.make_jaxpr(generator.synthesis)(ws)
    convs = [e for e in primitives(jaxpr.jaxpr) if e.primitive.name == "conv_general_dilated"]
    # Per block of two layers: four phases and conv1; on the way back conv1 again, where the phases
    # are one matrix product, and once for its kernel, which a compiler drops where nobody asks.
    # RGB heads are products both ways.
    assert len(convs) == (1 + 3 * 5) + differentiate * 2 * (1 + 3)
    batches = set()
    for conv in convs:
        assert conv.params["feature_group_count"] == conv.params["batch_group_count"] == 1
        assert conv.params["lhs_dilation"] == conv.params["rhs_dilation"] == (1, 1)
        batches.add(conv.invars[0].aval.shape[0])
    # The constant's convolution sees its modulated copies: the batch, on the way back times five.
    assert batches == ({4, 20} if differentiate else {4})


def test_rematerialisation_keeps_less_between_the_passes(small):
    cfg, weights, reference = small
    kept = {}
    for remat in (False, True):
        generator = load(cfg, weights, remat=remat)
        pull = jax.eval_shape(
            lambda ws, g=generator: jax.vjp(g.synthesis, ws)[1], jnp.asarray(reference["ws_psi07"])
        )
        kept[remat] = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pull))
    weight_bytes = sum(array.nbytes for array in weights.values())
    assert kept[True] - weight_bytes < 0.5 * (kept[False] - weight_bytes)


def test_rematerialisation_changes_no_gradient():
    ws = np.random.default_rng(3).standard_normal((2, TINY.num_ws, TINY.w_dim)).astype(np.float32)
    gradients = []
    for remat in (False, True):
        make = nnx.jit(lambda remat=remat: Generator(TINY, remat=remat, rngs=nnx.Rngs(0)))
        graph, params = nnx.split(make())

        def loss(w, p, graph=graph):
            return jnp.sum(jnp.square(nnx.merge(graph, p).synthesis(w)))

        gradients.append(jax.jit(jax.grad(loss))(ws, params))
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-5)


def test_bfloat16_computes_in_bfloat16_and_returns_float32(cond):
    cfg, weights, reference = cond
    generator = load(cfg, weights, dtype=jnp.bfloat16)
    images = synthesise(generator, reference["ws"])
    assert images.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(generator))} == {np.dtype(np.float32)}
    assert 1e-3 < synthetic.error(images, nhwc(reference["image_const"])) < 0.1
    jaxpr = jax.make_jaxpr(generator.synthesis)(jnp.asarray(reference["ws"]))
    convs = [e for e in primitives(jaxpr.jaxpr) if e.primitive.name == "conv_general_dilated"]
    assert {v.aval.dtype for conv in convs for v in conv.invars} == {jnp.dtype(jnp.bfloat16)}


def test_random_noise_is_fresh_per_sample_and_per_key():
    generator = nnx.jit(lambda: Generator(TINY, rngs=nnx.Rngs(0)))()
    generator.synthesis.b8.conv1.noise_strength[...] = jnp.ones(())
    graph, params = nnx.split(generator)
    ws = jnp.ones((2, TINY.num_ws, TINY.w_dim))
    draw = jax.jit(lambda p, key: nnx.merge(graph, p).synthesis(ws, noise="random", key=key))
    first, again, other = (draw(params, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert jnp.std(first[0] - first[1]) > 0.1
    assert jnp.std(first[0] - other[0]) > 0.1


def test_cutoff_leaves_later_codes_alone(small):
    cfg, weights, reference = small
    mapping = load(cfg, weights).mapping
    ws, truncated = mapping(reference["z"]), mapping(reference["z"], psi=0.0, cutoff=3)
    np.testing.assert_array_equal(truncated[:, 3:], ws[:, 3:])
    np.testing.assert_allclose(
        truncated[:, 2], np.tile(weights["mapping.w_avg"], (4, 1)), rtol=1e-6
    )


@pytest.mark.parametrize("resolution", [4, 8, 1024])
@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_any_resolution_and_channel_table(resolution, architecture):
    levels = resolution.bit_length() - 2
    cfg = StyleGAN2Config(
        resolution,
        tuple(range(levels + 4, 4, -1)),
        w_dim=6,
        z_dim=5,
        img_channels=2,
        architecture=architecture,
        use_noise=False,
        mapping_layers=2,
        mapping_dim=7,
    )
    images = jax.eval_shape(
        lambda z: Generator(cfg, rngs=nnx.Rngs(0))(z), jax.ShapeDtypeStruct((3, 5), jnp.float32)
    )
    assert (images.shape, cfg.num_ws) == ((3, resolution, resolution, 2), 2 * levels)


def test_config_survives_json():
    cfg = StyleGAN2Config.from_base(64, 1024, 32, conv_clamp=256.0, c_dim=3)
    assert StyleGAN2Config.from_dict(json.loads(json.dumps(cfg.to_dict()))) == cfg
    assert cfg.channels == (32, 32, 32, 32, 16)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resolution": 48}, "resolution is 48"),
        ({"channels": (8, 8)}, "channels has 2 entries"),
        ({"architecture": "u-net"}, "architecture is 'u-net'"),
        ({"conv_clamp": -1.0}, "conv_clamp is -1.0"),
        ({"channels": (8, 0, 8)}, r"channels\[1\] is 0"),
        ({"c_dim": -2}, "c_dim is -2"),
    ],
)
def test_config_names_what_is_wrong(change, words):
    with pytest.raises(ValueError, match=words):
        StyleGAN2Config(**{"resolution": 16, "channels": (8, 8, 8), **change})


def test_unknown_settings_and_upsampling_are_refused():
    with pytest.raises(ValueError, match="fmaps"):
        StyleGAN2Config.from_dict({"resolution": 4, "channels": [4], "fmaps": 1})
    with pytest.raises(ValueError, match="upsampling is 'bicubic'"):
        Generator(StyleGAN2Config(4, (4,)), upsampling="bicubic", rngs=nnx.Rngs(0))


def test_inputs_of_the_wrong_form_are_refused(small, cond):
    generator = load(*small[:2])
    conditional = load(*cond[:2])
    z, ws = jnp.ones((2, 64)), jnp.ones((2, 8, 64))
    with pytest.raises(ValueError, match=r"z has shape \(2, 63\)"):
        generator.mapping(z[:, 1:])
    with pytest.raises(ValueError, match="no classes"):
        generator.mapping(z, jnp.ones((2, 10)))
    with pytest.raises(ValueError, match="c is None"):
        conditional.mapping(z)
    with pytest.raises(ValueError, match=r"ws has shape \(2, 7, 64\)"):
        generator.synthesis(ws[:, 1:])
    with pytest.raises(ValueError, match="noise is 'white'"):
        generator.synthesis(ws, noise="white")
    with pytest.raises(ValueError, match="needs a key"):
        generator.synthesis(ws, noise="random")


@pytest.mark.full
def test_full_size_generator_agrees_with_the_original():
    manifest = synthetic.load_manifest("stylegan2", "stylegan2_ffhq256")
    reference = synthetic.load_reference("stylegan2", "stylegan2_ffhq256")
    weights = synthetic.weights(manifest)
    synthetic.check(manifest, weights)
    generator = load(config_of(manifest), weights)
    ws = generator.mapping(reference["z"])
    assert synthetic.error(ws, reference["ws"]) <= TOLERANCE
    images = np.asarray(synthesise(generator, reference["ws"])).transpose(0, 3, 1, 2)
    pixels = images.reshape(2, -1)[:, reference["pixel_index"]]
    assert synthetic.error(pixels, reference["pixel_value"]) <= TOLERANCE
    assert (
        synthetic.error(synthetic.project(images, manifest), reference["projection"]) <= TOLERANCE
    )
    assert synthetic.error(images.mean(axis=(1, 2, 3)), reference["image_mean"]) <= TOLERANCE
    assert synthetic.error(images.std(axis=(1, 2, 3)), reference["image_std"]) <= TOLERANCE
    assert synthetic.error(images.mean(axis=(2, 3)), reference["image_channel_mean"]) <= TOLERANCE
    if WHOLE_IMAGES.exists():  # too large for the repository
        with np.load(WHOLE_IMAGES) as arrays:
            assert np.abs(images - arrays["image_float16"]).max() <= 2e-3
