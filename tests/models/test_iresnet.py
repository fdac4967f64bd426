"""AdaFace backbones against the reference data."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import synthetic
from derivatives import pulled_back
from flax import nnx

from qdgs_jax.models.convolution import convolve
from qdgs_jax.models.iresnet import (
    BatchNorm,
    IResNet,
    IResNetConfig,
    Output,
    SqueezeExcite,
    Unit,
)
from qdgs_jax.ports.families.adaface_names import IGNORED, rules

TOLERANCE = 1e-4


def load(cfg: IResNetConfig, weights: dict[str, np.ndarray]) -> IResNet:
    return synthetic.load(lambda: IResNet(cfg, rngs=nnx.Rngs(0)), weights, rules(cfg), IGNORED)


def test_embeddings_agree_with_the_original():
    name = "adaface_ir18"  # the larger ones come with their ports, in `make test-full`
    manifest = synthetic.load_manifest("iresnet", name)
    reference = synthetic.load_reference("iresnet", name)
    weights = synthetic.weights(manifest)
    synthetic.check(manifest, weights)
    cfg = IResNetConfig.from_name(manifest["config"]["arch"])
    network = load(cfg, weights)
    graph, params = nnx.split(network)
    images = synthetic.make_input(manifest, "images").transpose(0, 2, 3, 1)
    embeddings, norms = jax.jit(lambda p, x: nnx.merge(graph, p)(x))(params, images)
    assert synthetic.error(embeddings, reference["embedding"]) <= TOLERANCE
    assert synthetic.error(norms, reference["norm"]) <= TOLERANCE


@pytest.mark.parametrize(("name", "units"), [("ir_34", 16), ("ir_se_50", 24), ("ir_101", 49)])
def test_shapes_of_the_architectures(name, units):
    cfg = IResNetConfig.from_name(name, input_size=32, embed_dim=7)
    network = nnx.eval_shape(lambda: IResNet(cfg, rngs=nnx.Rngs(0)))
    assert network.body.num_units == units
    embeddings, norms = jax.eval_shape(
        lambda net, x: net(x), network, jax.ShapeDtypeStruct((3, 32, 32, 3), jnp.float32)
    )
    assert (embeddings.shape, norms.shape) == ((3, 7), (3, 1))


def test_tables_fill_networks_with_squeeze_and_excitation():
    cfg = IResNetConfig.from_name("ir_se_18", input_size=16, embed_dim=3)
    rng = np.random.default_rng(0)
    arrays = {}
    shapes = {"se_block.fc1": (4, 64, 1, 1), "se_block.fc2": (64, 4, 1, 1)}
    manifest = synthetic.load_manifest("iresnet", "adaface_ir18")
    for tensor in manifest["tensors"]:
        arrays[tensor["name"]] = np.zeros(tensor["shape"], np.float32)
    for name in [n for n in arrays if n.startswith("output_layer.")]:
        width = 512 if name.startswith("output_layer.0") else 3
        shape = {"output_layer.3.weight": (3, 512)}.get(name, (width,))
        arrays[name] = np.zeros(shape, np.float32)
    for unit, width in enumerate((64, 64, 128, 128, 256, 256, 512, 512)):
        for part, shape in shapes.items():
            scaled = tuple(size * width // 64 for size in shape[:2])
            name = f"body.{unit}.res_layer.{part}.weight"
            arrays[name] = rng.standard_normal((*scaled, 1, 1)).astype(np.float32)
    network = load(cfg, arrays)
    squeeze = arrays["body.7.res_layer.se_block.fc1.weight"][:, :, 0, 0]
    np.testing.assert_array_equal(network.body.unit7.se.squeeze.kernel[0, 0], squeeze.T)


def test_squeeze_and_excitation_by_hand():
    gate = nnx.jit(lambda: SqueezeExcite(16, rngs=nnx.Rngs(0)))()
    x = np.random.default_rng(1).standard_normal((2, 3, 3, 16)).astype(np.float32)
    squeeze, excite = (np.asarray(each.kernel[...])[0, 0] for each in (gate.squeeze, gate.excite))
    means = x.mean(axis=(1, 2))
    weights = 1 / (1 + np.exp(-np.maximum(means @ squeeze, 0) @ excite))
    found = nnx.jit(lambda gate, x: gate(x))(gate, x)
    np.testing.assert_allclose(found, x * weights[:, None, None], rtol=1e-5)


def test_batch_norm_uses_its_running_statistics():
    norm = BatchNorm(2)
    norm.mean[...], norm.var[...] = np.float32([1.0, -2.0]), np.float32([4.0, 0.25])
    norm.scale[...], norm.bias[...] = np.float32([3.0, 1.0]), np.float32([0.5, 0.0])
    found = nnx.jit(lambda norm, x: norm(x))(norm, np.float32([[3.0, -1.0]]))
    np.testing.assert_allclose(found, [[3.5, 2.0]], rtol=1e-4)


def test_strided_unit_of_equal_width_passes_every_second_pixel():
    unit = nnx.jit(lambda: Unit(8, 8, 2, se=False, rngs=nnx.Rngs(0)))()
    unit.conv2.kernel[...] = jnp.zeros((3, 3, 8, 8))
    x = np.random.default_rng(0).standard_normal((1, 6, 6, 8)).astype(np.float32)
    np.testing.assert_array_equal(nnx.jit(lambda unit, x: unit(x))(unit, x), x[:, ::2, ::2])


def test_config_survives_json_and_names_what_is_wrong():
    cfg = IResNetConfig.from_name("ir_se_34", input_size=224)
    assert IResNetConfig.from_dict(json.loads(json.dumps(cfg.to_dict()))) == cfg
    with pytest.raises(ValueError, match="'ir_77'"):
        IResNetConfig.from_name("ir_77")
    with pytest.raises(ValueError, match="input_size is 100"):
        IResNetConfig(18, input_size=100)
    with pytest.raises(ValueError, match="width"):
        IResNetConfig.from_dict({"depth": 18, "width": 3})


def test_images_of_the_wrong_shape_are_refused():
    network = nnx.eval_shape(lambda: IResNet(IResNetConfig(18, input_size=32), rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"\(2, 3, 32, 32\)"):
        network(np.zeros((2, 3, 32, 32), np.float32))


def test_batch_norm_in_training_normalises_by_the_batch_and_moves_its_statistics():
    norm = BatchNorm(2)
    norm.mean[...], norm.var[...] = np.float32([1.0, -2.0]), np.float32([4.0, 0.25])
    x = np.random.default_rng(0).normal(3.0, 2.0, (4, 3, 3, 2)).astype(np.float32)
    rows = x.reshape(-1, 2).astype(np.float64)
    wanted = (x - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
    found = nnx.jit(lambda norm, x: norm(x, train=True))(norm, x)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(norm.mean[...], 0.9 * np.array([1, -2]) + 0.1 * rows.mean(0), 1e-5)
    sample = rows.var(0, ddof=1)  # as PyTorch keeps it
    np.testing.assert_allclose(norm.var[...], 0.9 * np.array([4, 0.25]) + 0.1 * sample, 1e-5)


def test_features_are_dropped_in_training_alone():
    cfg = IResNetConfig(10, input_size=56, embed_dim=4, widths=(2, 2, 2, 64), dropout=0.75)
    x = np.ones((200, 4, 4, 64), np.float32)  # 56 pixels are rounded up on their way to 4

    @jax.jit
    def outputs(x, key):
        output = Output(cfg, rngs=nnx.Rngs(0))
        output.dense.kernel[...] = jnp.ones_like(output.dense.kernel)
        output.norm.scale[...], output.norm.bias[...] = jnp.zeros(64), jnp.ones(64)
        seen = []
        still, found = output.dense(output.norm(x).reshape(200, -1)), output(x)
        output.embedding_norm = lambda values, train: seen.append(values) or values
        output(x, train=True, key=key)
        return still, found, seen[0]

    still, found, dropped = jax.device_get(outputs(x, jax.random.key(0)))
    np.testing.assert_allclose(found[:, 0], still[:, 0], rtol=1e-4)
    kept = dropped[:, 0] / 4  # how many of 1,024 features stayed, each counted fourfold
    assert kept.mean() == pytest.approx(256, rel=0.02)
    assert kept.std() == pytest.approx((1024 * 0.75 * 0.25) ** 0.5, rel=0.2)
    network = nnx.eval_shape(lambda: IResNet(cfg, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"dropout 0\.75 needs one"):
        network(np.zeros((2, 56, 56, 3), np.float32), train=True)


def test_small_networks_have_settings_of_their_own():
    cfg = IResNetConfig(10, input_size=56, embed_dim=5, widths=(2, 3, 4, 6))
    assert IResNetConfig.from_dict(json.loads(json.dumps(cfg.to_dict()))) == cfg
    network = nnx.eval_shape(lambda: IResNet(cfg, rngs=nnx.Rngs(0)))
    assert network.output.dense.kernel.shape == (4 * 4 * 6, 5)
    embeddings, _ = jax.eval_shape(
        lambda net, x: net(x), network, jax.ShapeDtypeStruct((3, 56, 56, 3), jnp.float32)
    )
    assert embeddings.shape == (3, 5)
    with pytest.raises(ValueError, match=r"widths are \[4, 4\]"):
        IResNetConfig(10, widths=(4, 4))
    with pytest.raises(ValueError, match=r"dropout is 1\.0"):
        IResNetConfig(10, dropout=1.0)


@pytest.mark.parametrize("channels", [(3, 4), (20, 4), (200, 60)])  # colours, few and many
@pytest.mark.parametrize(("size", "side", "stride"), [(3, 7, 1), (3, 7, 2), (3, 8, 2), (1, 7, 2)])
def test_convolutions_have_the_derivatives_that_differentiation_gives(size, side, stride, channels):
    rng = np.random.default_rng(0)
    x, kernel = (
        rng.normal(size=shape) for shape in ((2, side, side, channels[0]), (size, size, *channels))
    )
    x, kernel = x.astype(np.float32), kernel.astype(np.float32)

    def plain(x, kernel):
        pads = [(size // 2, size // 2)] * 2
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, dimension_numbers=names
        )

    y = rng.normal(size=jax.eval_shape(plain, x, kernel).shape).astype(np.float32)

    @jax.jit
    def both(y, *given):
        ours = pulled_back(lambda x, kernel: convolve(x, kernel, stride), y, *given)
        return ours, pulled_back(plain, y, *given)

    (found, ours), (wanted, theirs) = both(y, x, kernel)
    np.testing.assert_array_equal(found, wanted)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_batch_norm_in_training_keeps_the_type_of_its_pixels():
    with jax.enable_x64(True):
        graph, state = nnx.split(BatchNorm(2))
        x = jax.random.normal(jax.random.key(0), (3, 4, 2), jnp.float32)

        @jax.jit
        def normalise(x):
            return jax.vjp(lambda x: nnx.merge(graph, state, copy=True)(x, train=True), x)[0]

        @jax.jit
        def pull(x):
            return jax.vjp(lambda x: nnx.merge(graph, state, copy=True)(x, train=True), x)[1](x)[0]

        assert state["scale"][...].dtype == jnp.float64
        assert normalise(x).dtype == pull(x).dtype == jnp.float32
