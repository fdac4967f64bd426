"""What a clone or a download left in place of a file is named, whatever file it is."""

import numpy as np
import pytest
from labelled_rows import labelled
from run_text import RUN

from qdgs_jax.datasets.manifest import MANIFEST, ShardError, read_manifest
from qdgs_jax.datasets.pictures import open_pictures
from qdgs_jax.datasets.shards import read_rows, write_shards
from qdgs_jax.datasets.thumbnails import read_thumbnails
from qdgs_jax.elites import Elites
from qdgs_jax.ports.faces.damage import FaceSetError
from qdgs_jax.ports.faces.pictures import PictureError, decode_picture
from qdgs_jax.ports.faces.recordio import FaceRecords
from qdgs_jax.runs.config import ConfigError, read_run_file
from qdgs_jax.train.faces.recipe import RecipeError, read_recipe

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"
PAGE = b"<!DOCTYPE html><html><title>Sign in</title></html>"
STAND_INS = pytest.mark.parametrize(
    ("content", "said"), [(POINTER, "Git LFS pointer"), (PAGE, "web page")]
)
READERS = {
    "archive.parquet": (Elites.from_parquet, ValueError),
    "thumbnails.parquet": (read_thumbnails, ValueError),
    "run.toml": (read_run_file, ConfigError),
    "recipe.toml": (read_recipe, RecipeError),
    "train.rec": (FaceRecords, FaceSetError),
    "face.png": (lambda path: decode_picture(path.read_bytes()), PictureError),
    "photos.parquet": (lambda path: open_pictures(path.parent), ShardError),
}


@STAND_INS
@pytest.mark.parametrize("name", READERS)
def test_a_file_that_is_another_is_named(name, content, said, tmp_path):
    read, refusal = READERS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(refusal, match=said):
        read(tmp_path / name)


@STAND_INS
@pytest.mark.parametrize("name", ["shard-00000.parquet", MANIFEST])
def test_a_part_of_a_data_set_that_is_another_file_is_named(name, content, said, tmp_path):
    rows = labelled(np.arange(2), np.zeros((2, 2)))
    names = {"label_names": ("a", "b"), "measure_names": ("x", "y")}
    write_shards(tmp_path / "data", rows, [np.zeros((2, 8, 8, 3), np.uint8)], **names)
    (tmp_path / "data" / name).write_bytes(content)
    with pytest.raises(ShardError, match=said):
        read_rows(tmp_path / "data")


def test_an_own_mistake_is_told_with_its_line(tmp_path):
    (tmp_path / "my.toml").write_text(RUN.replace("seed = 0", "seed ="))
    with pytest.raises(ConfigError, match="not valid TOML: line 3, `seed =`"):
        read_run_file(tmp_path / "my.toml")
    with pytest.raises(ShardError, match="no data set here"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("generator", [None, "https://example.org/vae"])
def test_an_address_is_not_fetched(generator, tmp_path):
    file = "https://example.org/my.toml"
    if generator is not None:
        file = tmp_path / "my.toml"
        file.write_text(RUN.replace("embedded:shapes-vae", generator))
    with pytest.raises(ConfigError, match="an address, and nothing is downloaded"):
        read_run_file(file)
