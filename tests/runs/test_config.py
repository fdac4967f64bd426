"""Run files: what is accepted comes back unchanged, what is wrong is named with its cure."""

import importlib.resources
import tomllib

import pytest
from run_text import RUN

from qdgs_jax.runs.config import ConfigError, dump_run, load_run, parse_run, run_to_toml

SHAPES = importlib.resources.files("qdgs_jax").joinpath("assets/shapes.toml").read_text("utf-8")


def broken(old: str, new: str) -> str:
    """Parse a run file with one change, and return the error."""
    assert old in RUN
    with pytest.raises(ConfigError) as caught:
        parse_run(RUN.replace(old, new, 1), "my.toml")
    return str(caught.value)


def test_the_packaged_run_file_is_valid_and_survives_a_round_trip(tmp_path):
    config = parse_run(SHAPES)
    dump_run(config, tmp_path / "run.toml")
    assert load_run(tmp_path / "run.toml") == config


def test_grid_settings_are_read_per_measure():
    config = parse_run(RUN.replace("cells = 50", "cells = 20", 1))
    assert config.dims == (20, 50)
    assert config.ranges == ((-0.1, 0.1), (-0.1, 0.1))


def test_the_resolved_file_spells_out_every_field_of_the_packaged_one():
    resolved = tomllib.loads(run_to_toml(parse_run(SHAPES)))
    assert resolved == tomllib.loads(SHAPES)


def test_a_minimal_file_gets_defaults_and_odd_texts_survive():
    text = """
    name = "tab\\t \\"quotes\\" \\\\ \\u007f ü"
    [domain]
    kind = "shapes"
    generator = "embedded:a"
    clip = "embedded:b"
    [objective]
    positive = "x|y"
    negative = "z"
    [[measures]]
    name = "m"
    positive = "p"
    negative = "n"
    range = [-1e-7, 1]
    [archive]
    learning_rate = 1.0
    threshold_min = -inf
    [dataset]
    label = "m"
    bins = [2]
    """
    config = parse_run(text)
    assert config.search.evaluations == 20_000
    assert parse_run(run_to_toml(config)) == config


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        pytest.param(
            'algorithm = "cma_maega"',
            'algoritm = "cma_maega"',
            'my.toml: search.algoritm: unknown field; did you mean "algorithm"?',
            id="unknown field",
        ),
        pytest.param(
            'name = "colour"',
            'name = "colour"\nrnge = [0, 1]',
            'my.toml: measures[0].rnge: unknown field; did you mean "range"?',
            id="unknown field in a list of tables",
        ),
        pytest.param(
            'negative = "a blue shape"\n',
            "",
            "my.toml: measures[0].negative is missing: give a text, or several separated by |",
            id="one prompt missing",
        ),
        pytest.param(
            'negative = "a blue shape"',
            'negative = "blue | "',
            'my.toml: measures[0].negative = "blue | ": must be a text, or several separated by |, '
            "none of them empty",
            id="empty prompt",
        ),
        pytest.param(
            "sigma0 = 0.5",
            'sigma0 = "big"',
            'my.toml: search.sigma0 = "big": must be a number',
            id="wrong type",
        ),
        pytest.param(
            "cells = 50",
            "cells = true",
            "my.toml: measures[0].cells = true: must be an integer",
            id="a truth value is no number",
        ),
        pytest.param(
            "biases = [0.98, 0.95, 0.90, 0.85, 0.80]",
            "biases = [0.9, 1.2]",
            "my.toml: repair.biases[1] = 1.2: must be at most 1.0",
            id="out of range in a list",
        ),
        pytest.param(
            "qd_score_offset = 0.0",
            "qd_score_offset = nan",
            "my.toml: archive.qd_score_offset = nan: must be a finite number",
            id="not a number",
        ),
        pytest.param(
            'restart = "basic"',
            "restart = 0",
            'my.toml: search.restart = 0: must be "basic", "no_improvement" or a number of steps '
            "of at least 1",
            id="restart rule",
        ),
        pytest.param(
            'name = "shape"',
            'name = "colour"',
            'my.toml: measures: two measures are named "colour": names must differ',
            id="same name twice",
        ),
        pytest.param(
            'label = "shape"',
            'label = "shap"',
            'my.toml: dataset.label = "shap" names no measure; did you mean "shape"?; '
            'the measures are "colour", "shape"',
            id="label",
        ),
        pytest.param(
            'label = "shape"',
            'label = "{size}"',
            'my.toml: dataset.label = "{size}" names no measure; '
            'the measures are "colour", "shape"',
            id="braces in a text are only text",
        ),
        pytest.param(
            "[archive]",
            "[archiv]",
            'my.toml: archiv: unknown field; did you mean "archive"?',
            id="unknown table",
        ),
        pytest.param(
            "[domain]",
            "[colours]",
            "my.toml: domain is missing: give a table [domain]\n"
            "my.toml: colours: unknown field; known are name, seed, domain, objective, measures, "
            "archive, search, evaluation, dataset, repair",
            id="missing table",
        ),
        pytest.param(
            "bins = [4, 4]",
            "bins = [4]",
            "my.toml: dataset.bins = [4] has 1 entries for 2 measures: give one count per measure",
            id="bins",
        ),
        pytest.param(
            "qd_score_offset = 0.0",
            "learning_rate = 0.02\nthreshold_min = -inf",
            "my.toml: archive.learning_rate = 0.02 with threshold_min = -inf: only learning_rate = "
            "1.0 can start from -inf, so give a finite threshold_min",
            id="annealing from -inf",
        ),
    ],
)
def test_a_mistake_is_a_line_that_names_field_value_and_cure(old, new, error):
    assert broken(old, new) == error


@pytest.mark.parametrize("bounds", ["[0.1, -0.1]", "[0.1, 0.1]", "[0.1]", "[1, 2, 3]", "3"])
def test_a_range_that_is_none_is_refused(bounds):
    line = next(row for row in RUN.splitlines() if row.startswith("range"))
    assert broken(line, f"range = {bounds}").startswith(
        f"my.toml: measures[0].range = {bounds}: must be [low, high]"
    )


def test_an_unknown_algorithm_is_met_with_the_known_ones():
    error = broken('algorithm = "cma_maega"', 'algorithm = "cma_maga"')
    assert 'did you mean "cma_maega"' in error
    assert '"random"' in error


def test_every_mistake_of_a_file_is_reported_at_once():
    text = RUN.replace("seed = 0", "seed = -1", 1).replace("chunk = 25", "chunk = 0", 1)
    with pytest.raises(ConfigError) as caught:
        parse_run(text, "my.toml")
    assert str(caught.value).splitlines() == [
        "my.toml: seed = -1: must be at least 0",
        "my.toml: search.chunk = 0: must be more than 0",
    ]


def test_text_that_is_no_toml_is_refused_with_its_line():
    assert "my.toml: not valid TOML" in broken("[archive]", "[archive")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: no such run file; `qdgs init shapes"):
        load_run(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_run(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a text file"):
        load_run(tmp_path / "bytes.toml")


def test_folders_are_relative_to_the_run_file_and_must_exist(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text(RUN.replace("embedded:shapes-vae", "weights/vae"))
    with pytest.raises(ConfigError, match=r'domain\.generator = "weights/vae": no folder'):
        load_run(file)
    (tmp_path / "weights" / "vae").mkdir(parents=True)
    assert load_run(file).domain.generator == str(tmp_path / "weights" / "vae")
