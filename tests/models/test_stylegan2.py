"""StyleGAN2 against the reference data, against its definition, and its promises on form."""

from __future__ import annotations

import dataclasses
import itertools
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


def drawn(cfg: StyleGAN2Config, **policy: Any) -> tuple[Any, Any]:
    """A generator's structure and drawn weights."""
    make = lambda: Generator(cfg, rngs=nnx.Rngs(0), **policy)  # noqa: E731
    graph, shapes = nnx.split(nnx.eval_shape(make))
    rng = np.random.default_rng(0)
    return graph, jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)


def traced(generator: Generator, ws: Any, noise: str = "const") -> tuple[Any, Any]:
    """The program that draws images, and its first argument."""
    graph, params = nnx.split(generator)
    draw = jax.jit(lambda p, w: nnx.merge(graph, p).synthesis(w, noise=noise))
    return draw.trace(params, ws), params


def synthesise(generator: Generator, ws: Any, noise: str = "const") -> jax.Array:
    program, params = traced(generator, ws, noise)
    return program.lower().compile()(params, ws)


def primitives(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for sub in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(sub, "jaxpr", sub)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


def original(name: str) -> tuple[StyleGAN2Config, dict[str, np.ndarray], dict[str, np.ndarray]]:
    manifest = synthetic.load_manifest("stylegan2", name)
    weights = synthetic.weights(manifest)
    synthetic.check(manifest, weights)
    return config_of(manifest), weights, synthetic.load_reference("stylegan2", name)


@pytest.fixture(scope="module")
def small() -> tuple[StyleGAN2Config, dict[str, np.ndarray], dict[str, np.ndarray]]:
    return original("stylegan2_small")


@pytest.fixture(scope="module")
def cond() -> tuple[StyleGAN2Config, dict[str, np.ndarray], dict[str, np.ndarray]]:
    return original("stylegan2_cond")


@pytest.fixture(scope="module")
def small_generator(small) -> Generator:
    return load(*small[:2], upsampling="phases")


@pytest.fixture(scope="module")
def cond_generator(cond) -> Generator:
    return load(*cond[:2])


TRUNCATIONS = {
    "ws_psi1": {},
    "ws_psi07": {"psi": 0.7},
    "ws_psi07_cutoff4": {"psi": 0.7, "cutoff": 4},
}


def test_mapping_agrees_with_the_original(small, small_generator):
    reference, mapping = small[2], small_generator.mapping
    codes = jax.jit(lambda z: {name: mapping(z, **of) for name, of in TRUNCATIONS.items()})
    for name, ws in codes(reference["z"]).items():
        assert synthetic.error(ws, reference[name]) <= TOLERANCE, name


def test_mapping_of_classes_agrees_with_the_original(cond, cond_generator):
    reference, mapping = cond[2], cond_generator.mapping
    codes = jax.jit(lambda z, c: [mapping(z, c, psi=psi) for psi in (1.0, 0.7)])
    for name, ws in zip(("ws", "ws_psi07"), codes(reference["z"], reference["c"]), strict=True):
        assert synthetic.error(ws, reference[name]) <= TOLERANCE, name


# Pixels in their places, and squares of four in the channels: in other architectures and clamped,
# `test_stylegan2_on_accelerators` compares the two.
@pytest.mark.parametrize("upsampling", ["phases", "subpixel"])
def test_images_and_their_gradients_layer_by_layer_agree_with_the_original(small, upsampling):
    cfg, weights, reference = small
    graph, params = nnx.split(load(cfg, weights, upsampling=upsampling))
    cotangent = definition.nhwc(reference["cotangent"])

    def loss(ws, params):
        images = nnx.merge(graph, params).synthesis(ws)
        return jnp.sum(images * cotangent), images

    gradient, images = jax.jit(jax.grad(loss, has_aux=True))(reference["ws_psi07"], params)
    assert synthetic.error(images, definition.nhwc(reference["image_const"])) <= TOLERANCE
    assert synthetic.error(gradient, reference["grad_ws"]) <= TOLERANCE


def test_images_without_noise_agree_with_the_original(small, small_generator):
    reference = small[2]
    images = synthesise(small_generator, reference["ws_psi07"], "none")
    assert synthetic.error(images, definition.nhwc(reference["image_none"])) <= TOLERANCE


@pytest.mark.parametrize(("array", "clamp"), [("image_const", 256.0), ("image_const_clamp1", 1.0)])
def test_clamped_images_agree_with_the_original(cond, array, clamp):
    cfg, weights, reference = cond
    generator = load(dataclasses.replace(cfg, conv_clamp=clamp), weights)
    assert (
        synthetic.error(synthesise(generator, reference["ws"]), definition.nhwc(reference[array]))
        <= TOLERANCE
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


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_architectures_follow_the_definition_with_a_code_per_layer(cond, architecture):
    cfg, cond_weights, _ = cond
    weights = weights_of(architecture, cond_weights)
    cfg = dataclasses.replace(cfg, architecture=architecture, conv_clamp=2.0)
    ws = np.random.default_rng(0).standard_normal((2, cfg.num_ws, cfg.w_dim)).astype(np.float32)
    images = synthesise(load(cfg, weights), ws)
    by_definition = definition.Synthesis(weights, architecture, clamp=2.0)
    expected = np.stack([by_definition(codes) for codes in ws.astype(np.float64)])
    assert synthetic.error(images, definition.nhwc(expected)) <= TOLERANCE


def test_definition_agrees_with_the_original(cond):
    _, weights, reference = cond
    by_definition = definition.Synthesis(weights, "skip", clamp=1.0)
    image = by_definition(reference["ws"][1].astype(np.float64))
    assert synthetic.error(image, reference["image_const_clamp1"][1]) <= 1e-6


@pytest.mark.parametrize("differentiate", [False, True])
def test_every_convolution_is_one_ordinary_batched_convolution(
    small, small_generator, differentiate
):
    def pull_back(ws, cotangents):
        _, pull = jax.vjp(small_generator.synthesis, ws)
        return jax.vmap(pull)(cotangents)

    ws = small[2]["ws_psi07"]
    if differentiate:
        cotangents = jax.ShapeDtypeStruct((5, 4, 32, 32, 3), jnp.float32)
        jaxpr = jax.make_jaxpr(pull_back)(ws, cotangents)
    else:
        jaxpr = jax.make_jaxpr(small_generator.synthesis)(ws)
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


def test_rematerialisation_keeps_less_between_the_passes():
    ws = jax.ShapeDtypeStruct((4, TINY.num_ws, TINY.w_dim), jnp.float32)
    kept = {}
    for remat in (False, True):
        graph, params = drawn(TINY, remat=remat)
        pull = jax.eval_shape(
            lambda p, w, graph=graph: jax.vjp(nnx.merge(graph, p).synthesis, w)[1], params, ws
        )
        kept[remat] = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pull))
    weight_bytes = sum(array.nbytes for array in jax.tree.leaves(params))
    assert kept[True] - weight_bytes < 0.5 * (kept[False] - weight_bytes)


def test_rematerialisation_changes_no_gradient():
    ws = np.random.default_rng(3).standard_normal((2, TINY.num_ws, TINY.w_dim)).astype(np.float32)
    gradients = []
    for remat in (False, True):
        graph, params = drawn(TINY, remat=remat)

        def loss(w, p, graph=graph):
            return jnp.sum(jnp.square(nnx.merge(graph, p).synthesis(w)))

        gradients.append(jax.jit(jax.grad(loss))(ws, params))
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-5)


def test_bfloat16_computes_in_bfloat16_and_returns_float32(cond):
    cfg, weights, reference = cond
    generator = load(cfg, weights, dtype=jnp.bfloat16)
    program, params = traced(generator, reference["ws"])
    images = program.lower().compile()(params, reference["ws"])
    assert images.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(generator))} == {np.dtype(np.float32)}
    assert 1e-3 < synthetic.error(images, definition.nhwc(reference["image_const"])) < 0.1
    convs = [
        e for e in primitives(program.jaxpr.jaxpr) if e.primitive.name == "conv_general_dilated"
    ]
    assert {v.aval.dtype for conv in convs for v in conv.invars} == {jnp.dtype(jnp.bfloat16)}


def test_random_noise_is_fresh_per_sample_and_per_key():
    graph, params = drawn(TINY)
    ws = np.ones((2, TINY.num_ws, TINY.w_dim), np.float32)
    draw = jax.jit(lambda p, key: nnx.merge(graph, p).synthesis(ws, noise="random", key=key))
    keys = [jax.random.key(seed) for seed in (0, 0, 1)]
    first, again, other = (jax.device_get(draw(params, key)) for key in keys)
    np.testing.assert_array_equal(first, again)
    assert np.std(first[0] - first[1]) > 0.1
    assert np.std(first[0] - other[0]) > 0.1


def test_cutoff_leaves_later_codes_alone(small, small_generator):
    (_, weights, reference), mapping = small, small_generator.mapping
    codes = jax.jit(lambda z: (mapping(z), mapping(z, psi=0.0, cutoff=3)))
    ws, truncated = codes(reference["z"])
    np.testing.assert_array_equal(truncated[:, 3:], ws[:, 3:])
    np.testing.assert_allclose(
        truncated[:, 2], np.tile(weights["mapping.w_avg"], (4, 1)), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("resolution", "architecture"),
    [*itertools.product([4, 8], ["skip", "resnet", "orig"]), (1024, "resnet")],
)
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


def test_inputs_of_the_wrong_form_are_refused(small_generator, cond_generator):
    generator, conditional = small_generator, cond_generator
    z, ws = np.ones((2, 64), np.float32), np.ones((2, 8, 64), np.float32)
    with pytest.raises(ValueError, match=r"z has shape \(2, 63\)"):
        generator.mapping(z[:, 1:])
    with pytest.raises(ValueError, match="no classes"):
        jax.eval_shape(generator.mapping, z, z[:, :10])
    with pytest.raises(ValueError, match="c is None"):
        jax.eval_shape(conditional.mapping, z)
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
