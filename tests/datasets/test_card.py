"""The card of a data set: what the Hub reads of it, what people do, and how the folders load."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.dataset as pads
import pytest
import yaml
from labelled_rows import labelled

from qdgs_jax.datasets.balance import Balance, Group
from qdgs_jax.datasets.card import CARD, card_text
from qdgs_jax.datasets.manifest import DATA, Manifest, ShardError, read_manifest
from qdgs_jax.datasets.shards import ShardSource, read_table, write_shards

CLASSES = ("a <triangle>\nwith | 3 edges", 'a "square": *4* edges', "größe ☃")
SOURCE = {
    "run": "my run",
    "algorithm": "cma_maega",
    "seed": 7,
    "generator": "embedded:shapes-vae",
    "prompts": [["objective", "a shape", "noise | blur"], ["colour", "red", "blue"]],
}


def write(root: Path, count: int = 7, **changes: Any) -> Manifest:
    """A data set with a card, of three classes."""
    labels = np.arange(count) % 3
    rows = labelled(labels, np.arange(2 * count).reshape(count, 2), latents=np.zeros((count, 5)))
    given: dict[str, Any] = {
        "label_names": CLASSES,
        "measure_names": ("colour", "shape"),
        "source": SOURCE,
        "notes": ("no image is labelled 'x'.",),
        "balance": Balance(
            9, tuple(Group(c, "red", 3, n) for c, n in zip(CLASSES, (3, 2, 2), strict=True))
        ),
        "shard_size": 4,
        **changes,
    }
    pictures = np.full((count, 8, 12, 3), 7, np.uint8)
    return write_shards(root / DATA, rows, [pictures], card=root, **given)


def metadata(root: Path) -> dict[str, Any]:
    """What stands between the lines of a card's head."""
    text = (root / CARD).read_text(encoding="utf-8")
    assert text.startswith("---\n")
    parsed: dict[str, Any] = yaml.safe_load(text.split("\n---\n")[0])
    return parsed


def test_the_hub_reads_what_it_needs(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    write(tmp_path)
    card = hub.DatasetCard.load(tmp_path / CARD)
    assert card.data.task_categories == ["image-classification"]
    assert card.data.size_categories == ["n<1K"]
    assert card.data.license is None
    assert card.data.to_dict() == metadata(tmp_path)


@pytest.mark.parametrize(
    ("count", "name"), [(999, "n<1K"), (1000, "1K<n<10K"), (10**7, "10M<n<100M")]
)
def test_sizes_have_the_hubs_names(count: int, name: str) -> None:
    manifest = Manifest(count, (8, 8), (), (), (), (), ())
    assert f"size_categories:\n- {name}\n" in card_text(manifest, {})


def test_the_folder_of_the_card_is_a_data_set_for_datasets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    for name in ("datasets", "huggingface_hub"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    write(tmp_path / "set")
    (tmp_path / "set" / "archive.parquet").write_bytes(b"not of the data set")
    loaded = datasets.load_dataset(
        str(tmp_path / "set"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert "dataset card" not in caplog.text  # "Ignoring part of ..."
    assert len(loaded) == 7
    assert loaded.features["label"].names == list(CLASSES)
    described = metadata(tmp_path / "set")["dataset_info"]["features"]
    assert loaded.features == datasets.Features._from_yaml_list(described)
    assert loaded[6]["image"].size == (12, 8)


def test_pandas_and_pyarrow_take_the_shards_beside_it(tmp_path: Path) -> None:
    write(tmp_path)
    assert len(pd.read_parquet(tmp_path / DATA)) == 7
    assert pads.dataset(tmp_path / DATA).count_rows() == 7


def test_both_folders_are_the_data_set_here(tmp_path: Path) -> None:
    manifest = write(tmp_path)
    for folder in (tmp_path, tmp_path / DATA):
        assert read_manifest(folder, verify=True) == manifest
        assert read_table(folder).num_rows == len(ShardSource(folder)) == 7
        assert ShardSource(folder)[6]["label"] == 0


def test_people_read_what_it_is(tmp_path: Path) -> None:
    write(tmp_path)
    text = (tmp_path / CARD).read_text(encoding="utf-8")
    assert "# my run cma\\_maega" in text
    assert "7 generated images of 12 x 8 pixels in 3 classes." in text
    assert "| 0 | a \\<triangle> with \\| 3 edges | 3 | 3 |" in text
    assert "7 of 9 images that were asked for." in text
    assert "0.67 images for each one of the largest, and 2 of 3 groups have fewer" in text
    assert "| objective | a shape | noise \\| blur |" in text
    assert "- no image is labelled 'x'." in text
    assert "measures | where it lies between the prompts of each measure (colour, shape)" in text


def test_a_data_set_that_nobody_counted_has_a_card_too(tmp_path: Path) -> None:
    write(tmp_path, balance=None, source={}, notes=())
    text = (tmp_path / CARD).read_text(encoding="utf-8")
    assert "| 2 | größe ☃ | 2 |" in text
    assert metadata(tmp_path)["pretty_name"] == "images"


def test_a_readme_of_somebody_else_is_kept(tmp_path: Path) -> None:
    (tmp_path / CARD).write_text("---\nlicense: mit\n---\n")
    with pytest.raises(ShardError, match=r"README\.md is no data set's card"):
        write(tmp_path)
    assert (tmp_path / CARD).read_text() == "---\nlicense: mit\n---\n"
    assert not (tmp_path / DATA).exists()


def test_a_card_goes_with_a_data_set_that_fails(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="images for 8 rows"):
        rows = labelled(np.zeros(8), np.zeros((8, 1)))
        names: dict[str, Any] = {"label_names": ("one",), "measure_names": ("hue",)}
        images = [np.zeros((4, 8, 8, 3), np.uint8)]
        write_shards(tmp_path / DATA, rows, images, card=tmp_path, shard_size=4, **names)
    assert not list(tmp_path.rglob("*.*"))
