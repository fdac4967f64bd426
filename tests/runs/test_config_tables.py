"""Run files: fields whose texts and numbers mean more than they say come back unchanged."""

import pytest
from run_text import RUN

from qdgs_jax.runs.config import ConfigError, parse_run, run_to_toml
from qdgs_jax.runs.experiment_tables import EXPERIMENT_TABLES


def test_prompts_are_split_once_and_keep_their_texts():
    config = parse_run(RUN.replace('"a red shape"', '"a red shape| a pink one"'))
    assert config.measures[0].positive == ("a red shape", "a pink one")
    assert config.measures[0].negative == ("a blue shape",)
    assert parse_run(run_to_toml(config)) == config


def test_a_generator_of_ones_own_keeps_its_arguments():
    text = RUN.replace('kind = "shapes"', 'kind = "external"')
    text = text.replace(
        '"embedded:shapes-vae"', '"my.module:make"\narguments = { size = 3, names = ["a"] }'
    )
    config = parse_run(text)
    assert config.domain.arguments == {"size": 3, "names": ["a"]}
    assert parse_run(run_to_toml(config)) == config


def test_labels_of_several_measures_keep_their_cuts():
    changed = 'label = ["shape", "colour"]\nlabel_bins = [[-0.03, 0.03], [0]]'
    config = parse_run(RUN.replace('label = "shape"', changed))
    assert config.dataset.label_measures == ("shape", "colour")
    assert config.dataset.label_bins == ((-0.03, 0.03), (0.0,))
    assert parse_run(run_to_toml(config)) == config


@pytest.mark.parametrize("experiment", sorted(EXPERIMENT_TABLES))
def test_a_table_of_an_experiment_has_its_name(experiment):
    asked = RUN if f"[{experiment}]" in RUN else f"{RUN}[{experiment}]\n"
    assert isinstance(getattr(parse_run(asked), experiment), EXPERIMENT_TABLES[experiment])


def test_groups_of_an_audit_keep_their_order_and_texts():
    text = (
        RUN
        + '[audit.skin]\nlight = "light|fair"\ndark = "dark"\n[audit.age]\nold = "o"\nyoung = "y"'
    )
    config = parse_run(text)
    assert list(config.audit) == ["skin", "age"]
    assert config.audit["skin"] == {"light": ("light", "fair"), "dark": ("dark",)}
    assert list(config.audit["age"]) == ["old", "young"]
    assert parse_run(run_to_toml(config)) == config
    assert parse_run(RUN).audit is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("[audit]", "audit.ATTRIBUTE is missing: give a table of groups, such as [audit.skin]"),
        ('[audit]\nskin = "x"', 'audit.skin = "x": must be a table'),
        ("[audit.skin]", "audit.skin has no groups: give at least two groups, a text for each"),
        ('[audit.skin]\nlight = "a"', "audit.skin has the single group light"),
        ('[audit.skin]\nlight = "a"\ndark = "b| a"', 'audit.skin.dark = "a": skin.light has this'),
        ('[audit.skin]\nlight = "a|a"\ndark = "b"', 'audit.skin.light = "a": skin.light has this'),
        ('[audit.skin]\nlight = 3\ndark = "b"', "audit.skin.light = 3: must be a text in quotes"),
        ('[audit.skin]\nlight = ""\ndark = "b"', 'audit.skin.light = "": must be a text, or'),
        ('[audit."a,b"]\nx = "x"\ny = "y"', "must not be empty and has no comma"),
        ('[audit."a × b"]\nx = "x"\ny = "y"', "a × b: the name of an attribute must not be"),
    ],
)
def test_groups_that_nothing_can_be_told_apart_by_are_refused(table, message):
    with pytest.raises(ConfigError) as refused:
        parse_run(RUN + table)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("range = [-0.1, 0.1]", "range = [1e8, 100000010.0]", "measure 0 has 50 cells over"),
        ("range = [-0.1, 0.1]", "range = [0.0, 1e-44]", "that float32 can tell apart"),
        ("range = [-0.1, 0.1]", "range = [-1e39, 1e39]", "give two finite numbers, low < high"),
        ('"a red shape"', '"a blue shape"', 'measures[0].negative = "a blue shape": must differ'),
        ("image_size = 32", "image_size = 33", "repair.image_size = 33: must be a multiple of 8"),
        (
            'positive = "a regular square or a triangle"',
            'positive = "splatters of colors|splatters of colors"',
            "objective.negative",
        ),
    ],
)
def test_measures_that_cannot_tell_anything_are_refused(old, new, message):
    assert old in RUN
    with pytest.raises(ConfigError) as refused:
        parse_run(RUN.replace(old, new))
    assert message in str(refused.value)


def test_centroids_need_no_cells_that_float32_tells_apart():
    text = RUN.replace("range = [-0.1, 0.1]", "range = [1e8, 100000010.0]")
    assert parse_run(text.replace("[archive]", "[archive]\ncvt_cells = 9")).archive.cvt_cells == 9
