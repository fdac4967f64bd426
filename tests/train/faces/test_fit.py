"""Trainings of face networks: they learn, go on bit for bit, and refuse what does not fit."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import jax
import labelled_rows
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flax import nnx
from PIL import Image

from qdgs_jax.datasets.manifest import ShardError
from qdgs_jax.datasets.real_faces import import_identities
from qdgs_jax.datasets.shards import write_shards
from qdgs_jax.models.iresnet import IResNet
from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.loading import load
from qdgs_jax.runs.checkpoint import Snapshot
from qdgs_jax.train.faces.fit import Progress, train_faces, training_folder
from qdgs_jax.train.faces.recipe import Recipe, parse_recipe
from qdgs_jax.train.faces.stream import FaceOrder, FaceShards, batches

SIZE, PEOPLE, EACH = 16, 6, 5
TINY = f"""
seed = 4
[network]
depth = 10
input_size = {SIZE}
embed_dim = 8
widths = [4, 4, 8, 8]
[optimizer]
epochs = 3
batch_size = 8
milestones = [1, 2]
[data]
window = 12
threads = 2
[checkpoints]
seconds = 0
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 30 pictures of 6 people, imported from folders of files."""
    root = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(0)
    for person in range(PEOPLE):
        folder = root / "images" / f"person{person}"
        folder.mkdir(parents=True)
        for number in range(EACH):
            picture = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
            Image.fromarray(picture).save(folder / f"{number}.png")
    import_identities(root / "images", root / "shards", shard_size=11)
    return root / "shards"


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return parse_recipe(TINY)


class Stop:
    """Asks to stop after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def numbers(network: IResNet | None) -> dict[str, np.ndarray]:
    assert network is not None
    leaves = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(nnx.state(network)))[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_equal(first: IResNet | None, other: IResNet | None) -> None:
    wanted, found = numbers(first), numbers(other)
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.fixture(scope="module")
def undisturbed(recipe, data, tmp_path_factory) -> tuple[IResNet, list[Progress], Path]:
    told: list[Progress] = []
    out = tmp_path_factory.mktemp("whole") / "model"
    result = train_faces(recipe, data, out, progress=told.append)
    assert result.finished
    return result.network, told, out


def test_the_model_folder_is_read_back(undisturbed, recipe):
    network, told, out = undisturbed
    assert_equal(network, load(out, IResNet))
    assert parse_recipe((out / "recognition.toml").read_text()) == recipe
    assert not training_folder(out).exists()
    assert (told[-1].step, told[-1].steps, told[-1].epoch) == (9, 9, 3)
    assert np.isfinite(told[-1].loss)
    assert told[-1].learning_rate == pytest.approx(0.01 * recipe.optimizer.rate)


@pytest.mark.parametrize("stops", [(1, 4), (3, 2, 2)])
def test_a_stopped_training_goes_on_bit_for_bit(stops, undisturbed, recipe, data, tmp_path):
    out = tmp_path / "model"
    for steps in stops:
        result = train_faces(recipe, data, out, should_stop=Stop(steps))
        assert not result.finished
        assert not out.exists()
        assert len(list(training_folder(out).glob("step-*"))) <= 2
    result = train_faces(recipe, data, out)
    assert_equal(result.network, undisturbed[0])


def test_a_damaged_checkpoint_is_passed_over(undisturbed, recipe, data, tmp_path):
    out = tmp_path / "model"
    train_faces(recipe, data, out, should_stop=Stop(3))
    newest = max(training_folder(out).glob("step-*"))
    array = max(newest.glob("arrays/*.npy"), key=lambda file: file.stat().st_size)
    array.write_bytes(array.read_bytes()[:-1])
    assert_equal(train_faces(recipe, data, out).network, undisturbed[0])


def test_a_training_starts_from_weights_with_a_new_head(undisturbed, recipe, data, tmp_path):
    first, _, folder = undisturbed
    still = recipe.model_copy(
        update={"optimizer": recipe.optimizer.model_copy(update={"learning_rate": 1e-30})}
    )
    found = train_faces(still, data, tmp_path / "model", start=folder).network
    start, end = numbers(first), numbers(found)
    for name in start:
        if "mean" not in name and "var" not in name:
            np.testing.assert_array_equal(end[name], start[name], err_msg=name)
    wider = parse_recipe(TINY.replace("[4, 4, 8, 8]", "[4, 4, 8, 16]"))
    with pytest.raises(ValueError, match=r"channels \[4, 4, 8, 8\] instead of \[4, 4, 8, 16\]"):
        train_faces(wider, data, tmp_path / "other", start=folder)


def test_another_training_is_not_gone_on_with(recipe, data, tmp_path):
    out = tmp_path / "model"
    train_faces(recipe, data, out, should_stop=Stop(1))
    with pytest.raises(ValueError, match=r"recipe\.seed: 4 instead of 5"):
        train_faces(recipe.model_copy(update={"seed": 5}), data, out)
    out.mkdir()
    (out / "file").touch()
    with pytest.raises((CheckpointError, OSError), match="model"):
        train_faces(recipe, data, out)


def test_a_training_does_not_go_on_with_shards_that_were_changed(
    undisturbed, recipe, data, tmp_path
):
    copied, out, told = tmp_path / "data", tmp_path / "model", []
    shutil.copytree(data, copied)
    train_faces(recipe, copied, out, should_stop=Stop(3), told=told.append)
    shards = sorted(copied.glob("*.parquet"))
    content = shards[1].read_bytes()
    table = pq.read_table(shards[1])
    pq.write_table(table.take([1, 0, *range(2, len(table))]), shards[1])  # other rows' pictures
    assert told == []
    with pytest.raises(ShardError, match=f"{shards[1].name} was changed"):
        train_faces(recipe, copied, out, told=told.append)
    assert "1 of 3 shards" in told[0]
    shards[1].write_bytes(content)  # with another time
    assert_equal(train_faces(recipe, copied, out).network, undisturbed[0])


def test_a_picture_that_differs_from_its_checksum_is_named(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    shard = sorted((tmp_path / "data").glob("*.parquet"))[1]
    table = pq.read_table(shard)
    pictures = table["image"].to_pylist()
    content = pictures[3]["bytes"]  # Pillow does not compare the checksum of the last part
    pictures[3]["bytes"] = content[:-1] + bytes([content[-1] ^ 1])
    column = pa.array(pictures, table.schema.field("image").type)
    pq.write_table(table.set_column(0, "image", column), shard)
    order = FaceOrder(FaceShards(tmp_path / "data"), 0, batch_size=10, epochs=1, window=12)
    with pytest.raises(ShardError, match=r"picture of row 14 cannot be decoded: .*checksum"):
        for position in range(len(order)):
            order[position]


def test_data_that_does_not_fit_is_refused(recipe, data, tmp_path):
    other = parse_recipe(TINY.replace(f"input_size = {SIZE}", "input_size = 32"))
    with pytest.raises(ValueError, match=r"images of 16 x 16 .* takes 32 x 32: .*input_size"):
        train_faces(other, data, tmp_path / "model")
    many = parse_recipe(TINY.replace("batch_size = 8", "batch_size = 64"))
    with pytest.raises(ValueError, match=r"30 images and a step takes 64: .*batch_size"):
        train_faces(many, data, tmp_path / "model")
    with pytest.raises(ValueError, match=r"8 images at once .* 3 devices"):
        train_faces(recipe, data, tmp_path / "model", devices=jax.devices() * 3)


def test_shards_without_subjects_are_refused(recipe, tmp_path):
    rows = labelled_rows.labelled(np.arange(4) % 2, np.zeros((4, 1), np.float32))
    pictures = np.zeros((4, SIZE, SIZE, 3), np.uint8)
    write_shards(tmp_path, rows, [pictures], label_names="ab", measure_names="m")
    with pytest.raises(ValueError, match="no column `subject`"):
        train_faces(recipe, tmp_path, tmp_path / "model")


def test_shards_that_were_changed_are_refused(data, tmp_path):
    shutil.copytree(data, tmp_path / "fewer")
    shard = sorted((tmp_path / "fewer").glob("*.parquet"))[0]
    table = pq.read_table(shard)
    pq.write_table(table.slice(0, 4), shard)
    with pytest.raises(ValueError, match="has 23 rows, but its manifest says 30"):
        FaceShards(tmp_path / "fewer")
    place = table.column_names.index("subject")
    subjects = [None, *table["subject"].to_pylist()[1:]]
    nobody = pa.array(subjects, table.schema.field("subject").type)
    pq.write_table(table.set_column(place, "subject", nobody), shard)
    with pytest.raises(ValueError, match="does not say of 1 images who is on them"):
        FaceShards(tmp_path / "fewer")


@pytest.mark.filterwarnings("ignore:overflow|invalid")
def test_a_training_that_diverges_ends_and_writes_no_model(data, tmp_path):
    wild = parse_recipe(TINY.replace("batch_size", "learning_rate = 1e30\nbatch_size"))
    with pytest.raises(
        ValueError, match=r"after step \d+ the loss is \S+, .*learning_rate.*1e\+30"
    ):
        train_faces(wild, data, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_full_disk_is_told_by_its_place(recipe, data, tmp_path, monkeypatch):
    def full(snapshot, place, about):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Snapshot, "write", full)
    with pytest.raises(OSError, match=r"No space left .* a checkpoint; .*make room") as caught:
        train_faces(recipe, data, tmp_path / "model")
    assert caught.value.filename.startswith(str(training_folder(tmp_path / "model")))


def test_each_epoch_shows_each_image_once_in_an_order_of_its_own(data):
    shards = FaceShards(data)
    order = FaceOrder(shards, seed=1, batch_size=10, epochs=2, window=12)
    shown = [order[position] for position in range(60)]
    pictures = [record["image"].tobytes() for record in shown]
    assert len(set(pictures[:30])) == 30
    assert set(pictures[30:]) == set(pictures[:30])
    assert pictures[30:] != pictures[:30]
    people: dict[int, set[bytes]] = {}
    for record, picture in zip(shown, pictures, strict=True):
        people.setdefault(int(record["identity"]), set()).add(picture)
    assert sorted(people) == list(range(PEOPLE))
    assert all(len(files) == EACH for files in people.values())


def test_batches_are_those_of_the_order_from_any_step(data):
    order = FaceOrder(FaceShards(data), seed=1, batch_size=8, epochs=2, window=12)
    whole = list(batches(order, 8, 0, threads=2))
    assert len(whole) == 6
    wanted = [order[position]["image"] for position in range(8, 16)]
    np.testing.assert_array_equal(whole[1]["image"], wanted)
    for first in (1, 4):
        left = list(batches(order, 8, first, threads=2))
        assert len(left) == 6 - first
        for one, other in zip(left, whole[first:], strict=True):
            np.testing.assert_array_equal(one["image"], other["image"])
            np.testing.assert_array_equal(one["identity"], other["identity"])
