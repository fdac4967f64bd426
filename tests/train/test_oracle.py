"""The oracle against pictures whose content is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qdgs_jax.domains.shapes_drawing import biased_dataset
from qdgs_jax.train.shapes.oracle import UNCLEAR, Judgement, Oracle, judge_dataset, train_oracle

pytestmark = pytest.mark.usefixtures("optimised")


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return train_oracle(0, image_size=16)


def test_it_knows_shapes_and_colours_it_has_not_seen(oracle: Oracle) -> None:
    images, shapes, colours = biased_dataset(11, 300, 0.5, 32)
    groups = oracle.judge(images)
    assert (groups % 2 == colours).all()
    assert (groups // 2 == shapes).mean() > 0.95
    assert oracle.accuracy > 0.9


@pytest.mark.parametrize(
    "colour",
    [
        pytest.param((255, 255, 255), id="blank"),
        pytest.param((90, 90, 90), id="grey"),
        pytest.param((120, 20, 130), id="purple"),
        pytest.param((20, 160, 30), id="green"),
    ],
)
def test_what_is_neither_red_nor_blue_is_unclear(
    oracle: Oracle, colour: tuple[int, int, int]
) -> None:
    image = np.full((1, 32, 32, 3), 255, np.uint8)
    image[:, 8:24, 8:24] = colour
    assert oracle.judge(image).tolist() == [UNCLEAR]


def test_shares_of_a_data_set(oracle: Oracle, biased_drawings: Path) -> None:
    shares = judge_dataset(biased_drawings, oracle).shares()
    assert shares["red triangle"] + shares["blue square"] > 0.9
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["unclear"] == 0.0


def test_shares_and_agreement_worked_by_hand() -> None:
    judgement = Judgement(np.array([0, 0, 1, 2, 3, UNCLEAR]), np.array([0, 1, 0, 1, 1, 0]))
    sixth = 1 / 6
    assert judgement.shares() == pytest.approx(
        {
            "red triangle": 2 * sixth,
            "blue triangle": sixth,
            "red square": sixth,
            "blue square": sixth,
            "unclear": sixth,
        }
    )
    assert judgement.label_agreement() == pytest.approx(4 / 5)
    assert Judgement(np.array([UNCLEAR]), np.array([0])).label_agreement() == 0.0
