"""Recipes: the packaged one is the published one, schedules, and what is refused."""

from __future__ import annotations

import pytest

from qdgs_jax.models.iresnet import IResNetConfig
from qdgs_jax.train.faces.recipe import (
    OptimizerTable,
    Recipe,
    RecipeError,
    default_recipe,
    parse_recipe,
    read_recipe,
    recipe_to_toml,
)


def test_the_packaged_recipe_spells_out_the_defaults_which_are_the_published_ones(tmp_path):
    recipe = default_recipe()
    assert recipe == Recipe()
    assert recipe.network.config() == IResNetConfig(101)
    table = recipe.optimizer
    assert (table.epochs, table.milestones, table.factor) == (26, (12, 20, 24), 0.1)
    assert (table.batch_size, table.momentum, table.weight_decay) == (512, 0.9, 5e-4)
    assert (recipe.head.kind, recipe.head.scale, recipe.head.h) == ("adaface", 64.0, 0.333)
    (tmp_path / "my.toml").write_text(recipe_to_toml(recipe))
    assert read_recipe(tmp_path / "my.toml") == recipe


@pytest.mark.parametrize(
    ("batch_size", "rate"),
    [(512, 0.1), (64, 0.01), pytest.param(256, 0.1 * 10 ** (-1 / 3), id="a third of the way")],
)
def test_the_rate_follows_the_batch(batch_size, rate):
    assert OptimizerTable(batch_size=batch_size).rate == pytest.approx(rate)
    assert OptimizerTable(batch_size=batch_size, learning_rate=0.3).rate == 0.3


def test_milestones_after_the_end_are_told():
    assert OptimizerTable().never_reached is None
    assert OptimizerTable(epochs=2, milestones=()).never_reached is None
    told = OptimizerTable(epochs=13).never_reached
    assert told is not None
    assert told.endswith("milestones = [6, 10, 12] stand where the published ones do")
    assert "over after 13 epochs, and the learning rate never falls at 20, 24;" in told


def test_the_rate_falls_after_whole_epochs():
    schedule = OptimizerTable(learning_rate=0.5).schedule(steps_per_epoch=7)
    for epoch, rate in ((0, 0.5), (11, 0.5), (12, 0.05), (19, 0.05), (20, 5e-3), (24, 5e-4)):
        for step in (7 * epoch, 7 * epoch + 6):
            assert float(schedule(step)) == pytest.approx(rate, rel=1e-5), (epoch, step)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = -1", "seed = -1: must be at least 0"),
        ("[network]\ndepth = 42", "network.depth = 42: must be one of 10, 18, 34, 50, 101"),
        ("[network]\ninput_size = 100", "network.input_size = 100: must be a multiple of 8"),
        ("[network]\nwidths = [64, 128]", r"network.widths"),
        ("[network]\nwidths = [1, 2, 3, 0]", "network.widths = [1, 2, 3, 0]: must be positive"),
        ("[network]\ndtype = 'float16'", "network.dtype = \"float16\": must be 'float32' or"),
        ("[network]\nse = true\nwidths = [8, 8, 8, 8]", "squeeze-and-excitation needs at least 16"),
        ("[head]\nkind = 'softmax'", "head.kind = \"softmax\": must be 'adaface', 'arcface' or"),
        ("[head]\nt_alpha = 0.0", "head.t_alpha = 0.0: must be more than 0"),
        ("[optimizer]\nepochs = 1.5", "optimizer.epochs = 1.5: must be an integer"),
        ("[optimizer]\nbatch_size = 10\naccumulate = 4", "optimizer.accumulate = 4: must divide"),
        ("[optimizer]\nmilestones = [12, 12]", "optimizer.milestones = [12, 12]: must rise"),
        ("[optimizer]\nlr = 0.1", "optimizer.lr: unknown field"),
        ("[augmentation]\nflip = 1.5", "augmentation.flip = 1.5: must be at most 1"),
        ("[augmentation]\nflip = nan", "augmentation.flip"),
        ("[data]\nwindow = 0", "data.window = 0: must be at least 1"),
        ("seed =\n", "not valid TOML: line 1, `seed =`: what follows = is no value"),
        ('name = "mine"\n[search]', "is a run file, not a recipe; `qdgs init recognition"),
    ],
)
def test_mistakes_are_named_by_file_and_field(text, message, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(RecipeError) as caught:
        read_recipe(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)


def test_every_mistake_has_a_line():
    with pytest.raises(RecipeError) as caught:
        parse_recipe("seed = -1\n[data]\nwindow = 0\n", "mine")
    assert len(str(caught.value).splitlines()) == 2


def test_files_that_are_none_are_refused(tmp_path):
    for path, content in ((tmp_path / "none", None), (tmp_path / "bytes", b"\xff\xfe\x00")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(RecipeError, match=path.name):
            read_recipe(path)
