"""Run files: fields whose texts and numbers mean more than they say come back unchanged."""

import pytest
from run_text import RUN

from qdgs_jax.runs.config import parse_run, run_to_toml
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
    assert isinstance(getattr(parse_run(RUN), experiment), EXPERIMENT_TABLES[experiment])
