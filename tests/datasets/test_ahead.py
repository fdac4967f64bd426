"""What follows a search is looked at before it: refused where it cannot be made, else doubted."""

import copy

import jax.numpy as jnp
import numpy as np
import pytest
from run_text import RUN
from toy_runs import toy_domain

from qdgs_jax import ports
from qdgs_jax.cli.init import packaged_run
from qdgs_jax.datasets.ahead import check_data_set
from qdgs_jax.experiments.ahead import look_ahead
from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.runs.config import ConfigError, parse_run

WHOLE = RUN.replace("images = 1000", "images = 100")
PEOPLE = "\n[dataset.subjects]\n"
DRAWN = packaged_run("drawn-faces")


def changed(text, **changes):
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return parse_run(text)


def doubts(text=WHOLE, **changes):
    return check_data_set(changed(text, **changes), toy_domain(None))


def write_rows(folder, rows):
    count, width = rows.shape
    config = {"kind": "latents", "count": count, "latent_dim": width}
    ports.save_model(folder, config, {"rows": rows})
    return f'{PEOPLE}augmentations = "{folder}"\n'


@pytest.mark.parametrize("name", ["shapes", "faces", "faces-accelerator", "drawn-faces"])
def test_the_packaged_runs_are_let_through(name):
    config = parse_run(packaged_run(name))
    drawn = config.model_copy(
        update={
            "dataset": config.dataset.model_copy(
                update={
                    "subjects": config.dataset.subjects
                    and config.dataset.subjects.model_copy(update={"augmentations": None})
                }
            )
        }
    )
    assert check_data_set(drawn, toy_domain(None)) == []


def test_augmentations_of_another_generator_are_refused(tmp_path):
    rows = np.zeros((3, 10), np.float32)
    text = WHOLE + write_rows(tmp_path / "wide", rows)
    with pytest.raises(ValueError, match="of 10 numbers, and the generator's latents have 4: in"):
        doubts(text)
    assert doubts(WHOLE + write_rows(tmp_path / "fitting", rows[:, :4])) == []
    rows[1, 1] = np.nan
    with pytest.raises(ValueError, match="not finite: port others"):
        doubts(WHOLE + write_rows(tmp_path / "nan", rows[:, :4]))
    with pytest.raises(CheckpointError, match="of kind 'clip', not 'latents'"):
        doubts(WHOLE + PEOPLE + 'augmentations = "embedded:faces-clip"\n')
    with pytest.raises(CheckpointError, match=r"augmentations = 'embedded:nope': there are no"):
        doubts(WHOLE + PEOPLE + 'augmentations = "embedded:nope"\n')


def test_pictures_that_cannot_be_in_ffhqs_alignment_are_refused():
    domain = copy.copy(toy_domain(None))
    domain.pictures = lambda params, latents: jnp.zeros((len(latents), 16, 24, 3), jnp.uint8)
    with pytest.raises(ValueError, match=r'24 x 16 pixels cannot be in FFHQ.*align = "none"'):
        check_data_set(changed(WHOLE + PEOPLE), domain)
    assert check_data_set(changed(WHOLE + PEOPLE + 'align = "none"\n'), domain) == []


@pytest.mark.parametrize(
    ("bins", "margin", "message"),
    [
        ("[[-0.03, 0.03]]", 0.03, "the cuts -0.03 and 0.03 of label_bins: give less than 0.03"),
        ("[[-0.03, 0.0, 0.01]]", 0.01, "between the cuts 0 and 0.01"),
        ("[[0.0]]", 3.2, "no room for images beyond the cut 0: measures are differences of angles"),
        ("[[0.0, 3.0]]", 0.2, "between -3.14 and 3.14; give less than 0.1416"),
        ("[[-3.0]]", 0.2, "beyond the cut -3"),
        ("[[0.0, 7.0]]", 0.0, "label_bins has the cut 7: measures are differences of angles, and"),
        ("[[-7.0, 0.0]]", 0.0, "label_bins has the cut -7"),
    ],
)
def test_classes_that_can_hold_nothing_are_refused(bins, margin, message):
    with pytest.raises(ConfigError) as refused:
        doubts(**{'label = "shape"': f'label = "shape"\nlabel_bins = {bins}\nmargin = {margin}'})
    assert message in str(refused.value)
    assert str(refused.value).startswith("run file: dataset.")


def test_classes_with_a_little_room_are_let_through():
    cuts = 'label = "shape"\nlabel_bins = [[-0.03, 0.03]]\nmargin = 0.029'
    assert doubts(**{'label = "shape"': cuts, "bins = [4, 4]": "bins = [4, 1]"}) == []


@pytest.mark.parametrize(
    ("bins", "margin", "where"),
    [
        ("[[0.0, 0.1]]", 0.0, "from 0.1"),  # the range ends there
        ("[[0.0, 0.07]]", 0.03, "from 0.1"),
        ("[[-0.2, 0.0]]", 0.0, "below -0.2"),
        ("[[0.0, 0.2, 0.3]]", 0.01, "from 0.21 to 0.29"),
    ],
)
def test_classes_beyond_the_range_are_told(bins, margin, where):
    cuts = f'label = "shape"\nlabel_bins = {bins}\nmargin = {margin}'
    told = doubts(**{'label = "shape"': cuts, "bins = [4, 4]": "bins = [4, 1]"})
    assert f"classes of 'shape' {where} lie beyond its range [-0.1, 0.1], for which" in told[0]


def test_data_sets_that_will_be_short_or_uneven_are_told():
    cells = {"cells = 50": "cells = 9"}
    assert "dataset.images = 100 is more than the 81 cells" in doubts(**cells)[0]
    assert doubts(**cells, **{"images = 100": "images = 81"}) == []
    cvt = {"qd_score_offset = 0.0": "qd_score_offset = 0.0\ncvt_cells = 99"}
    assert "more than the 99 cells" in doubts(**cvt)[0]
    told = doubts(**{"images = 100": "images = 15"})
    assert told == [
        "dataset.images = 15 is less than the 16 groups of classes and bins: ask for at least 16 "
        "images, one for each group"
    ]
    told = doubts(**{'label = "shape"': 'label = "shape"\nlabel_bins = [[0.05]]'})
    assert "will not have as many images, for they reach into 4 and 12 bins: give each" in told[0]


def test_texts_that_an_audit_could_not_read_are_refused(tmp_path):
    groups = f'\n[audit.skin]\nlight = "light"\ndark = "{" ".join(["dark"] * 100)}"\n'
    with pytest.raises(ValueError, match=r"audit.skin.dark: the prompt .* this CLIP takes"):
        look_ahead(changed(WHOLE + groups), toy_domain(None), tmp_path)


def experiments(text, **changes):
    config = changed(text, **changes)
    return look_ahead(config, toy_domain(None), "my.toml")


def test_experiments_that_will_refuse_a_run_are_told():
    refusal = "`qdgs train` will refuse this run: my.toml: repair.image_size = 32, but images are"
    assert [refusal in each for each in experiments(WHOLE)] == [True]
    fitting = {"image_size = 32": "image_size = 16"}
    assert experiments(WHOLE, **fitting) == []
    (told,) = experiments(WHOLE, **fitting, **{'"a red shape"': '"a green shape"'})
    assert "`qdgs train` will refuse this run: [repair] needs a measure from red to blue" in told
    text = WHOLE.partition("[repair]")[0] + "[recognition]\nside = 32\n"
    (told,) = experiments(text)
    assert "my.toml has no table [dataset.subjects], so its data sets have no people" in told
    people = text + PEOPLE
    assert experiments(people) == []
    (told,) = experiments(people + "side = 24\n")
    assert "recognition.side = 32, but people are 24 pixels wide: give at most 24" in told
    (told,) = experiments(people, **{"side = 32": "people = 5\npictures = 6\nbatch_size = 31"})
    assert "recognition.batch_size = 31, but 5 people have 30 pictures" in told
