"""Run files: what is accepted comes back unchanged, what is wrong is named with its cure."""

import importlib.resources
import subprocess
import sys
import tomllib

import pytest
from run_text import RUN

from qdgs_jax.runs.config import (
    ConfigError,
    parse_run,
    read_run_file,
    resolve_folders,
    run_to_toml,
    write_run_file,
)

ASSETS = importlib.resources.files("qdgs_jax").joinpath("assets")
SHAPES = ASSETS.joinpath("shapes.toml").read_text("utf-8")
PACKAGED = sorted(
    a.name for a in ASSETS.iterdir() if a.name.endswith(".toml") and a.name != "recognition.toml"
)


def broken(old: str, new: str) -> str:
    """Parse a run file with one change, and return the error."""
    assert old in RUN
    with pytest.raises(ConfigError) as caught:
        parse_run(RUN.replace(old, new, 1), "my.toml")
    return str(caught.value)


@pytest.mark.parametrize("name", PACKAGED)
def test_the_packaged_run_files_are_valid_and_survive_a_round_trip(name, tmp_path):
    config = parse_run(ASSETS.joinpath(name).read_text("utf-8"))
    for folder in ("ffhq-256", "vit-b-32"):
        (tmp_path / "weights" / folder).mkdir(parents=True)
    config = resolve_folders(config, tmp_path)
    write_run_file(config, tmp_path / "run.toml")
    assert read_run_file(tmp_path / "run.toml") == config


def test_the_faces_run_is_the_papers():
    config = parse_run(ASSETS.joinpath("faces.toml").read_text("utf-8"))
    assert config.dims == (50, 25, 5, 25)
    assert config.ranges == ((-0.1, 0.1),) * 4
    assert (config.objective.norm_penalty, config.objective.uniqueness) == (0.5, 0.2)
    assert (config.search.steps, config.search.step_evaluations) == (60_000, 4)
    assert (config.domain.cutouts, config.domain.truncation) == (1, 0.7)
    many = parse_run(ASSETS.joinpath("faces-accelerator.toml").read_text("utf-8"))
    assert many.search.evaluations == config.search.evaluations
    assert (many.measures, many.objective) == (config.measures, config.objective)


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
            "test_images = 5000",
            "test_image = 5000",
            'my.toml: repair.test_image: unknown field; did you mean "test_images"?',
            id="unknown field of an experiment",
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
            "archive, search, evaluation, dataset, audit, repair, recognition",
            id="missing table",
        ),
        pytest.param(
            "bins = [4, 4]",
            "bins = [4]",
            "my.toml: dataset.bins = [4] has 1 entries for 2 measures: give one count per measure",
            id="bins",
        ),
        pytest.param(
            "bins = [4, 4]",
            "bins = [1000, 1000]",
            "my.toml: dataset.bins = [1000, 1000]: makes 1,000,000 bins: give at most 10,000, far "
            "fewer than images",
            id="more bins than anybody counts",
        ),
        pytest.param(
            "bins = [4, 4]",
            "bins = [4, 4]\nsubjects = {side = 1000000, augmentation_count = 1000000}",
            "my.toml: dataset.subjects.augmentation_count = 1000000: must be at most 4096\n"
            "my.toml: dataset.subjects.side = 1000000: must be at most 4096",
            id="pictures that no memory holds",
        ),
        pytest.param(
            "qd_score_offset = 0.0",
            "learning_rate = 0.02\nthreshold_min = -inf",
            "my.toml: archive.learning_rate = 0.02 with threshold_min = -inf: only learning_rate = "
            "1.0 can start from -inf, so give a finite threshold_min",
            id="annealing from -inf",
        ),
        pytest.param(
            "qd_score_offset = 0.0",
            "threshold_min = -inf",
            "my.toml: archive.learning_rate = 0.02 with threshold_min = -inf: only learning_rate = "
            "1.0 can start from -inf, so give a finite threshold_min",
            id="annealing from -inf at the algorithm's own rate",
        ),
        pytest.param(
            'kind = "shapes"',
            'kind = "shape"',
            'my.toml: domain.kind = "shape": must be "shapes" or "faces" or "external"',
            id="unknown kind of domain",
        ),
        pytest.param(
            'kind = "shapes"\n',
            "",
            'my.toml: domain.kind is missing: give "shapes" or "faces" or "external"',
            id="no kind of domain",
        ),
        pytest.param(
            "cutouts = 0",
            "cutouts = -1",
            "my.toml: domain.cutouts = -1: must be at least 0",
            id="a field of a kind of domain",
        ),
        pytest.param(
            "cutouts = 0",
            "cutout = 0",
            'my.toml: domain.cutout: unknown field; did you mean "cutouts"?',
            id="unknown field of a kind of domain",
        ),
        pytest.param(
            'clip = "embedded:shapes-clip"\n',
            "",
            "my.toml: domain.clip is missing: give embedded:NAME or a folder",
            id="missing field of a kind of domain",
        ),
        pytest.param(
            'kind = "shapes"',
            'kind = "external"',
            'my.toml: domain.generator = "embedded:shapes-vae": must be "module:factory", a module '
            "that Python finds and what makes it",
            id="a generator of one's own",
        ),
        pytest.param(
            "[repair]",
            "[classifier]",
            "my.toml: classifier: unknown field; it is called [repair]",
            id="the old name of an experiment's table",
        ),
        pytest.param(
            "emitters = 8",
            "emitters = 513",
            "my.toml: search.emitters = 513: each starts from a latent of its own, and "
            "start_batches x start_batch_size = 512 are looked at; give fewer emitters or more of "
            "these",
            id="more emitters than start latents",
        ),
        pytest.param(
            'label = "shape"',
            'label = ["shape", "size"]',
            'my.toml: dataset.label = "size" names no measure; the measures are "colour", "shape"',
            id="one of several labels",
        ),
        pytest.param(
            'label = "shape"',
            "label = 3",
            "my.toml: dataset.label = 3: must be the name of a measure, or a list of names",
            id="a label that is no name",
        ),
        pytest.param(
            'label = "shape"',
            'label = "shape"\nlabel_bins = [[0.1, -0.1]]',
            "my.toml: dataset.label_bins = [[0.1, -0.1]]: must be a list of ascending cut points "
            "for each label measure",
            id="cut points",
        ),
        pytest.param(
            'label = "shape"',
            'label = ["shape", "colour"]\nlabel_bins = [[0.0]]',
            "my.toml: dataset.label_bins = [[0.0]] has 1 entries for 2 label measures: give a list "
            "of cut points for each",
            id="cut points for some labels",
        ),
        pytest.param(
            "[dataset]",
            "[evaluation]\nremat = 1\n[dataset]",
            "my.toml: evaluation.remat = 1: must be true or false",
            id="a number is no truth value",
        ),
        pytest.param(
            "[dataset]",
            '[evaluation]\ndtype = "float16"\n[dataset]',
            "my.toml: evaluation.dtype = \"float16\": must be 'auto', 'float32' or 'bfloat16'",
            id="one of a few words",
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


def test_a_recipe_is_not_taken_for_a_run_with_everything_wrong():
    with pytest.raises(ConfigError) as caught:
        parse_run("seed = 0\n[network]\ndepth = 18\n[optimizer]\nepochs = 3\n", "my.toml")
    assert str(caught.value) == (
        "my.toml: is a recipe of `qdgs train DATA --config`, not a run file; "
        "`qdgs init shapes FILE` writes one to start from"
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: no such run file; `qdgs init shapes"):
        read_run_file(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"is a folder.*--resume"):
        read_run_file(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a text file"):
        read_run_file(tmp_path / "bytes.toml")


def test_folders_are_relative_to_the_run_file_and_must_exist(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text(RUN.replace("embedded:shapes-vae", "weights/vae"))
    with pytest.raises(ConfigError, match=r'domain\.generator = "weights/vae": no folder'):
        read_run_file(file)
    (tmp_path / "weights" / "vae").mkdir(parents=True)
    assert read_run_file(file).domain.generator == str(tmp_path / "weights" / "vae")


def test_a_run_folder_finds_its_weights_after_both_were_moved(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "weights" / "vae").mkdir(parents=True)
    (old / "runs" / "one").mkdir(parents=True)
    (old / "my.toml").write_text(RUN.replace("embedded:shapes-vae", "weights/vae"))
    write_run_file(read_run_file(old / "my.toml"), old / "runs" / "one" / "run.toml")
    old.rename(new)
    moved = read_run_file(new / "runs" / "one" / "run.toml")
    assert moved.domain.generator == str(new / "weights" / "vae")
    assert moved.domain.clip == "embedded:shapes-clip"


def test_a_byte_order_mark_is_no_part_of_a_run_file(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text(RUN, encoding="utf-8-sig")
    assert read_run_file(file) == parse_run(RUN)


def test_importing_the_configuration_does_not_import_jax():
    code = "import sys, qdgs_jax.runs.config; print(sorted({'jax', 'pandas'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"
