"""From a published checkpoint and a `.bin` file to embeddings and an accuracy."""

from __future__ import annotations

from typing import Any

import checkpoint_formats as formats
import face_files
import jax
import numpy as np
import pytest
import synthetic
import torch_writer as tw
from flax import nnx

from qdgs_jax.models import iresnet
from qdgs_jax.models.iresnet import IResNet
from qdgs_jax.ports import convert, load
from qdgs_jax.ports.faces.pairs import FacePairs, PairIndex
from qdgs_jax.ports.faces.pairs_bin import read_pairs_bin
from qdgs_jax.ports.families import adaface, adaface_names
from qdgs_jax.train.faces import embed
from qdgs_jax.train.faces.embed import embed_faces, verify_pairs

PAIRS = 40
NARROW = {64: 4, 128: 8, 256: 16, 512: 32}  # widths of the network of these tests


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> IResNet:
    """IR-18 of a sixteenth of its widths for images of 16 x 16, ported from a Lightning file."""
    folder = tmp_path_factory.mktemp("network")
    manifest = formats.small_adaface()
    tensors = []
    for tensor in manifest["tensors"]:
        shape = [NARROW.get(size, size) for size in tensor["shape"]]
        tensors.append({**tensor, "shape": shape})
        if len(shape) > 1:  # a sixteenth of the inputs: as large an output needs larger weights
            tensors[-1]["std"] = 4 * tensor["std"]
    checkpoint = tw.zip_bytes(formats.lightning({**manifest, "tensors": tensors}))
    (folder / "adaface.ckpt").write_bytes(checkpoint)
    with pytest.MonkeyPatch.context() as patch:
        for module in (iresnet, adaface, adaface_names):
            patch.setattr(module, "WIDTHS", tuple(NARROW.values()))
        convert("adaface", folder / "adaface.ckpt", folder / "adaface")
        return load(folder / "adaface", IResNet)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> FacePairs:
    """Pairs read from a `.bin` file: pictures of one person differ by noise, some by a lot."""
    rng = np.random.default_rng(0)
    same = rng.random(PAIRS) < 0.5
    first, other = face_files.faces(PAIRS, seed=1), face_files.faces(PAIRS, seed=2)
    noise = rng.normal(0, rng.choice([2, 2, 2, 60], PAIRS)[:, None, None, None], first.shape)
    alike = np.clip(first + noise, 0, 255).astype(np.uint8)
    images = np.stack([first, np.where(same[:, None, None, None], alike, other)], axis=1)
    images = images.reshape(2 * PAIRS, 16, 16, 3)
    path = tmp_path_factory.mktemp("set") / "lfw.bin"
    path.write_bytes(face_files.pairs_bin([face_files.encoded(i) for i in images], list(same)))
    found = read_pairs_bin(path)
    np.testing.assert_array_equal(found.images, images)
    return found


def by_definition(network: IResNet, images: np.ndarray) -> np.ndarray:
    """Embeddings of pictures and mirror images, added with their lengths and normalised."""
    graph, state = nnx.split(network)
    apply: Any = jax.jit(lambda s, x: nnx.merge(graph, s)(x))
    total = np.zeros(())
    for view in (images, np.flip(images, axis=2)):
        blue_first = np.stack([view[..., 2], view[..., 1], view[..., 0]], axis=-1)
        scaled = ((blue_first / 255.0 - 0.5) / 0.5).astype(np.float32)
        unit, norm = apply(state, scaled)
        total = total + np.asarray(unit, np.float64) * np.asarray(norm, np.float64)
    return total / np.sqrt((total**2).sum(axis=1, keepdims=True))


def accuracy_by_definition(embeddings: np.ndarray, same: np.ndarray) -> float:
    """Ten folds of four pairs, pair by pair and threshold by threshold."""
    distances = [float(((a - b) ** 2).sum()) for a, b in embeddings.reshape(PAIRS, 2, -1)]
    accuracies = []
    for fold in range(10):
        test = range(4 * fold, 4 * fold + 4)
        train = [pair for pair in range(PAIRS) if pair not in test]
        right = [
            sum((distances[pair] < step * 0.01) == same[pair] for pair in train)
            for step in range(400)
        ]
        best = right.index(max(right)) * 0.01
        accuracies.append(sum((distances[pair] < best) == same[pair] for pair in test) / 4)
    return float(np.mean(accuracies))


def test_a_ported_network_verifies_a_bin_file_as_the_protocol_implies(network, pairs):
    wanted = by_definition(network, pairs.images)
    embeddings, norms = embed_faces(network, pairs.images, batch_size=32)  # two and a half batches
    assert np.abs(embeddings - wanted).max() <= 1e-4
    assert norms.shape == (2 * PAIRS, 1)
    result = verify_pairs(network, pairs, batch_size=32)
    assert result.accuracy == accuracy_by_definition(embeddings, pairs.index.same)
    assert 0.6 < result.accuracy < 1.0  # neither chance nor beyond doubt
    assert result.groups is None
    assert result.roc.tar[-1] == 1.0


def test_few_pictures_are_not_filled_up_to_a_batch(network, pairs, monkeypatch):
    shapes: list[int] = []
    embedded = embed._embed

    def noted(graph: Any, state: Any, images: np.ndarray, flip: bool) -> Any:
        shapes.append(len(images))
        return embedded(graph, state, images, flip)

    monkeypatch.setattr(embed, "_embed", noted)
    few, _ = embed_faces(network, pairs.images[:3])
    some, _ = embed_faces(network, pairs.images[:5], batch_size=4)
    assert shapes == [3, 4, 4]
    np.testing.assert_allclose(few, some[:3], atol=1e-6)


def test_a_picture_of_many_pairs_is_embedded_once(network, pairs, monkeypatch):
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 9, (2, 60))
    same = rng.random(60) < 0.5
    counted: list[int] = []
    embed_all = embed.embed_faces

    def noted(model: IResNet, images: np.ndarray, **options: Any) -> Any:
        counted.append(len(images))
        return embed_all(model, images, **options)

    monkeypatch.setattr(embed, "embed_faces", noted)
    index = PairIndex(first, second, same, ("dark", "light") * 30)
    shared = verify_pairs(network, FacePairs(pairs.images[:9], index), batch_size=9)
    rows = pairs.images[np.stack([first, second], axis=1).reshape(-1)]
    apart = PairIndex.in_rows(same, index.groups)
    wanted = verify_pairs(network, FacePairs(rows, apart), batch_size=9)
    assert counted == [9, 120]
    for name in ("accuracies", "thresholds", "tpr", "fpr"):
        found = getattr(shared.folds, name)
        np.testing.assert_array_equal(found, getattr(wanted.folds, name), err_msg=name)
    assert shared.groups == wanted.groups


def test_groups_of_pairs_are_verified_apart(network, pairs):
    groups = tuple(np.repeat(["dark", "light"], PAIRS // 2))
    grouped = FacePairs(pairs.images, PairIndex.in_rows(pairs.index.same, groups))
    found = verify_pairs(network, grouped, batch_size=32).groups
    assert found is not None
    assert [group.pairs for group in found.groups] == [20, 20]


def test_pictures_of_another_size_are_refused(network):
    with pytest.raises(ValueError, match=r"uint8\[2, 8, 8, 3\].*\[N, 16, 16, 3\]"):
        embed_faces(network, np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="float64"):
        embed_faces(network, np.zeros((2, 16, 16, 3)))


@pytest.mark.full
@pytest.mark.parametrize("name", ["adaface_ir18", "adaface_ir50", "adaface_ir101"])
def test_full_size_networks_on_a_bin_file(name, tmp_path):
    """The reference's pictures are no 8-bit ones: as they are, they give its embeddings.

    Rounded to 8 bits for a `.bin` file, they give what the network makes of the rounded ones.
    """
    manifest, reference = (
        synthetic.load_manifest("iresnet", name),
        synthetic.load_reference("iresnet", name),
    )
    (tmp_path / "adaface.ckpt").write_bytes(tw.zip_bytes(formats.lightning(manifest)))
    convert("adaface", tmp_path / "adaface.ckpt", tmp_path / "out")
    network = load(tmp_path / "out", IResNet)
    graph, state = nnx.split(network)
    apply: Any = jax.jit(lambda s, x: nnx.merge(graph, s)(x))
    exact = synthetic.make_input(manifest, "images").transpose(0, 2, 3, 1)
    assert np.abs(apply(state, exact)[0] - reference["embedding"]).max() <= 1e-4
    rounded = np.round((exact + 1) * 127.5)
    pictures = [face_files.encoded(image) for image in rounded.astype(np.uint8)[..., ::-1]]
    (tmp_path / "lfw.bin").write_bytes(face_files.pairs_bin(pictures, [True]))
    pairs = read_pairs_bin(tmp_path / "lfw.bin")
    embeddings, _ = embed_faces(network, pairs.images, flip=False, batch_size=2)
    wanted = apply(state, (rounded / 127.5 - 1).astype(np.float32))[0]
    assert np.abs(embeddings - wanted).max() <= 1e-4
    assert np.abs(embeddings - reference["embedding"]).max() <= 1e-2  # what rounding does
