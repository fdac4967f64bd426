"""Labels by rule: cuts of several measures, names, margins; balance counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from labelled_rows import labelled, sign_of
from run_text import RUN

from qdgs_jax.datasets.balance import Balance, Group, UnbalancedError, measure_balance
from qdgs_jax.datasets.labels import LabelRule, class_names, label_rule
from qdgs_jax.report.verdict import answer
from qdgs_jax.runs.config import RunConfig, parse_run

SKIN = ("skin", "dark skin", "light skin")
GENDER = ("gender", "a man", "a woman")
CUTS = (-0.03, 0.03)
FACES = RUN.replace(
    'label = "shape"\n',
    'label = ["colour", "shape"]\nlabel_bins = [[-0.03, 0.03], [0.0]]\nmargin = 0.01\n',
)


def config(text: str = RUN, **changes: str) -> RunConfig:
    for old, new in changes.items():
        text = text.replace(old, new)
    return parse_run(text)


def test_two_measures_cut_twice_make_nine_classes_with_names_of_their_own() -> None:
    names = class_names((SKIN, GENDER), (CUTS, CUTS))
    assert len(set(names)) == 9
    assert names[0] == "dark skin / a man"
    assert names[1] == "dark skin / gender -0.03 to 0.03"
    assert names[8] == "light skin / a woman"


def test_names_that_prompts_do_not_tell_apart_are_told_by_values() -> None:
    names = class_names((("hue", "a shape", "a shape"),), ((0.0,),))
    assert names == ("hue below 0", "hue from 0")


def test_cuts_that_differ_in_late_digits_make_names_that_differ() -> None:
    names = class_names((SKIN,), ((0.012345671, 0.012345672, 0.5),))
    assert names[1:3] == ("skin 0.012345671 to 0.012345672", "skin 0.012345672 to 0.5")


def test_labels_of_several_measures_count_bins_row_by_row() -> None:
    rule = LabelRule((0, 2), (CUTS, (0.0,)), tuple("abcdef"))
    measures = np.array([[-0.05, 9, -1], [-0.03, 9, 1], [0.0, 9, -1], [0.03, 9, 0.0]])
    assert rule.labels(measures).tolist() == [0, 3, 2, 5]  # a value at a cut is above it


def test_the_margin_holds_at_every_cut_of_every_label_measure() -> None:
    rule = LabelRule((0, 1), (CUTS, (0.0,)), tuple("abcdef"), margin=0.02)
    measures = np.array([[0.0, 0.05], [0.02, 0.05], [0.06, 0.01], [0.06, -0.05]])
    assert rule.distances(measures) == pytest.approx([0.03, 0.01, 0.01, 0.03])
    assert rule.sure(measures).tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"measures": ()}, "at least one cut point"),
        ({"cuts": ((0.1, 0.0),)}, "must ascend"),
        ({"names": ("a",)}, "2 classes are named"),
        ({"names": ("a", "a")}, "each once"),
        ({"margin": -0.1}, "margin is -0.1"),
        ({"margin": float("nan")}, "margin is nan"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rule: dict[str, object], message: str) -> None:
    whole = {"measures": (0,), "cuts": ((0.0,),), "names": ("a", "b"), **rule}
    with pytest.raises(ValueError, match=message):
        LabelRule(**whole)  # type: ignore[arg-type]


def test_a_run_file_names_the_rule() -> None:
    sign = label_rule(config())
    assert (sign.measures, sign.cuts, sign.margin) == ((1,), ((0.0,),), 0.0)
    assert sign.names == ("a triangle with 3 edges", "a square or diamond with 4 edges")
    several = label_rule(config(FACES))
    assert (several.measures, several.cuts) == ((0, 1), (CUTS, (0.0,)))
    assert several.names[0] == "a red shape / a triangle with 3 edges"
    assert several.margin == 0.01


def test_cut_points_for_another_number_of_measures_are_refused() -> None:
    text = FACES.replace("[[-0.03, 0.03], [0.0]]", "[[-0.03, 0.03]]")
    with pytest.raises(ValueError, match="label_bins"):
        label_rule(config(text))


def test_balance_counts_every_class_in_every_bin_that_it_reaches() -> None:
    run = config(**{"bins = [4, 4]": "bins = [2, 2]", "images = 1000": "images = 8"})
    measures = np.array([[-0.05, -0.05]] * 3 + [[0.05, -0.05]] + [[-0.05, 0.05]] * 2)
    rows = labelled((measures[:, 1] >= 0).astype(int), measures)
    balance = measure_balance(run, label_rule(run), rows)
    triangle, square = "a triangle with 3 edges", "a square or diamond with 4 edges"
    assert balance.groups == (
        Group(triangle, "a red shape", 2, 3),
        Group(triangle, "a blue shape", 2, 1),
        Group(square, "a red shape", 2, 2),
        Group(square, "a blue shape", 2, 0),
    )
    assert [(g.label, g.asked, g.got) for g in balance.labels] == [(triangle, 4, 4), (square, 4, 2)]
    assert (balance.got, balance.ratio) == (6, 0.0)
    assert [group.got for group in balance.short] == [1, 0]
    with pytest.raises(UnbalancedError, match=r"2 of 4 groups are short .*0 of 2"):
        balance.check()
    assert Balance.from_dict(balance.to_dict()) == balance


def test_a_margin_as_wide_as_a_bin_leaves_nothing_to_ask_of_it() -> None:
    run = config(
        **{"bins = [4, 4]": "bins = [1, 4]", 'label = "shape"': 'label = "shape"\nmargin = 0.05'}
    )
    rows = labelled(np.array([0]), np.array([[0.0, -0.07]]))
    balance = measure_balance(run, label_rule(run), rows)
    assert [group.bin for group in balance.groups] == ["shape -0.1 to -0.05", "shape 0.05 to 0.1"]


def test_an_equal_data_set_is_balanced() -> None:
    run = config(**{"bins = [4, 4]": "bins = [1, 2]", "images = 1000": "images = 5"})
    rows = labelled(np.array([0, 1] * 2), np.array([[0.0, -0.05], [0.0, 0.05]] * 2))
    balance = measure_balance(run, sign_of(1), rows)
    assert (balance.ratio, balance.short) == (1.0, ())
    balance.check()


def cut_at(cut: float, images: int, bins: str = "[1, 4]") -> Balance:
    """Equal groups, of classes that are cut at `cut`: a row in the middle of each."""
    run = config(
        **{
            "bins = [4, 4]": f"bins = {bins}\nlabel_bins = [[{cut}]]",
            "images = 1000": f"images = {images}",
        }
    )
    middles = np.array([-0.075, -0.025, 0.025, 0.075])
    measures = np.stack([np.zeros(4), middles], axis=1)
    rule = label_rule(run)
    return measure_balance(run, rule, labelled(rule.labels(measures), measures))


def test_classes_of_unequal_reach_are_not_called_balanced() -> None:
    balance = cut_at(0.05, 4)
    assert (balance.ratio, balance.short) == (1.0, ())
    triangle, square = "a triangle with 3 edges", "a square or diamond with 4 edges"
    message = f"of 4 images {square!r} has 1 and {triangle!r} has 3, for they reach into 1 and 3"
    assert balance.uneven is not None
    assert balance.uneven.startswith(message)
    assert answer(balance) == f"No: {balance.uneven}."
    with pytest.raises(UnbalancedError, match="not equally large: of 4 images 'a square"):
        balance.check()
    assert cut_at(0.05, 4, "[1, 1]").uneven is None
    assert cut_at(0.0, 4).uneven is None


def test_fewer_images_than_groups_leave_groups_short() -> None:
    run = config(**{"bins = [4, 4]": "bins = [1, 4]", "images = 1000": "images = 2"})
    measures = np.array([[0.0, -0.07], [0.0, 0.07]])
    balance = measure_balance(run, label_rule(run), labelled(np.array([0, 1]), measures))
    assert [group.got for group in balance.short] == [0, 0]
    with pytest.raises(UnbalancedError, match="ask for at least 4 images, one for each group"):
        balance.check()
