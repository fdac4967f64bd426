"""Domains of shapes alone are those that would be loaded, and need no weights."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest
from domain_settings import settings
from faces_run import RUN as FACES
from faces_run import port_generator

from qdgs_jax.domains import load_domain
from qdgs_jax.domains.weights import ASSETS
from qdgs_jax.models.stylegan2 import StyleGAN2Config
from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.targets.abstract import abstract_domain
from qdgs_jax.targets.sizes import SIZES, read_sizes

SHAPES = (ASSETS / "shapes.toml").read_text()
DRAWN = (ASSETS / "drawn-faces.toml").read_text()


def shapes_of(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize("text", [SHAPES, DRAWN], ids=["shapes", "drawn-faces"])
def test_it_is_the_loaded_domain_but_for_the_numbers(text):
    config = settings(text)
    loaded, abstract = load_domain(config), abstract_domain(config)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(abstract.params))
    assert shapes_of(abstract.params) == shapes_of(loaded.params)
    for field in dataclasses.fields(loaded):
        if field.name not in ("params", "generator"):
            assert getattr(abstract, field.name) == getattr(loaded, field.name), field.name
    for field in dataclasses.fields(loaded.generator):
        ours, theirs = (getattr(each.generator, field.name) for each in (abstract, loaded))
        assert ours == theirs, field.name


def test_settings_are_those_of_the_backend_it_is_for():
    for backend, precision in (("cpu", "default"), ("tpu", "high")):
        assert abstract_domain(settings(SHAPES), backend).computation.precision == precision


def test_published_sizes_stand_for_weights():
    config = settings(FACES, domain={"generator": "ffhq-256", "clip": "vit-b-32"})
    domain = abstract_domain(config)
    assert domain.latent_dim == 14 * 512
    pictures = jax.eval_shape(
        domain.pictures, domain.params, jax.ShapeDtypeStruct((2, domain.latent_dim), jnp.float32)
    )
    assert pictures.shape == (2, 256, 256, 3)
    assert domain.params.targets.objective.positive.shape == (1, 512)


def test_a_generator_of_ones_own_by_its_shapes(tmp_path):
    (tmp_path / "plain.py").write_text(
        "import jax, jax.numpy as jnp\n"
        "class Plain:\n"
        "    latent_dim = 5\n"
        "    params = {'w': jax.ShapeDtypeStruct((5, 48), jnp.float32)}\n"
        "    def decode(self, params, latents):\n"
        "        return jax.nn.sigmoid(latents @ params['w']).reshape(-1, 4, 4, 3)\n"
        "    def sample(self, params, key, count):\n"
        "        return jax.random.normal(key, (count, 5))\n"
    )
    table = {"kind": "external", "generator": "plain:Plain", "folder": str(tmp_path)}
    config = settings(SHAPES)
    domain = type(settings(EXTERNAL).domain)(clip="embedded:shapes-clip", **table)
    found = abstract_domain(config.model_copy(update={"domain": domain}))
    assert found.latent_dim == 5
    assert found.params.generator["w"].shape == (5, 48)


EXTERNAL = SHAPES.replace('kind = "shapes" ', 'kind = "external" ').replace(
    '"embedded:shapes-vae"', '"plain:Plain"'
)


# Sizes


def test_a_folder_that_is_missing_is_told_as_by_loading(tmp_path):
    with pytest.raises(CheckpointError, match=r"is not a model.*file of settings.*vit-b-32"):
        read_sizes("clip", str(tmp_path / "nowhere"))


def test_a_model_folder_tells_its_sizes(tmp_path):
    folder = port_generator(tmp_path)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "config.json").write_text((folder / "config.json").read_text())
    assert read_sizes("stylegan2", str(alone)) == read_sizes("stylegan2", str(folder))
    with pytest.raises(CheckpointError, match="of kind 'stylegan2', not 'clip'"):
        read_sizes("clip", str(folder))


def test_files_of_settings(tmp_path):
    file = tmp_path / "sizes.json"
    cfg = StyleGAN2Config.from_base(64, channel_base=2048)
    file.write_text(json.dumps(cfg.to_dict()))
    assert read_sizes("stylegan2", str(file)) == cfg
    file.write_text(json.dumps({"config": {"kind": "stylegan2", **cfg.to_dict()}}))
    assert read_sizes("stylegan2", str(file)) == cfg
    with pytest.raises(CheckpointError, match="describes a 'stylegan2', not a 'vae'"):
        read_sizes("vae", str(file))
    file.write_text('{"resolution": 64, "width": 3}')
    with pytest.raises(CheckpointError, match="unknown StyleGAN2 settings"):
        read_sizes("stylegan2", str(file))
    file.write_text("[")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        read_sizes("stylegan2", str(file))


def test_hugging_faces_settings_of_a_clip(tmp_path):
    file = tmp_path / "config.json"
    tower = {"num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    vision = {**tower, "hidden_size": 768, "image_size": 224, "patch_size": 32}
    text = {**tower, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048}
    fields = {"model_type": "clip", "projection_dim": 512}
    file.write_text(json.dumps({**fields, "vision_config": vision, "text_config": text}))
    assert read_sizes("clip", str(file)) == SIZES["clip"]["vit-b-32"]
    del vision["patch_size"]
    file.write_text(json.dumps({**fields, "vision_config": vision, "text_config": text}))
    with pytest.raises(CheckpointError, match="lacks 'patch_size'"):
        read_sizes("clip", str(file))
