"""What the comparison of pretrainings came to; read without JAX."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from qdgs_jax.train.faces.fairness import Fairness, GroupResult

NONE = "none"
SIZES = ("15", "50")  # thousands of latents in the paper
SMALL = 0.3  # share of the people that stands for the paper's 15,000 of 50,000
KINDS: Mapping[str, str] = {"Rand": "baseline", "QD": "run"}  # and whose people they are
ARMS = (NONE, *(f"{kind}{size}" for size in SIZES for kind in KINDS))  # in the paper's order


@dataclasses.dataclass(frozen=True)
class Arm:
    """What came of one kind of pretraining, over S seeds.

    Attributes:
        latents: that were pretrained on.
        people: that their pictures show.
        images: of them.
        groups: verification by skin group, for each seed.
        sets: for each seed, the accuracy on sets of pairs in FFHQ's proportions, by name.
    """

    latents: int
    people: int
    images: int
    groups: tuple[Fairness, ...]
    sets: tuple[Mapping[str, float], ...]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All arms, by their names."""

    arms: Mapping[str, Arm]

    def to_json(self) -> str:
        """All numbers as JSON text."""
        arms = {name: dataclasses.asdict(arm) for name, arm in self.arms.items()}
        return json.dumps({"arms": arms}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Comparison:
        """Read `to_json`'s text.

        Raises:
            ValueError: it is not such a text.
        """
        try:
            arms = {name: read_arm(fields) for name, fields in json.loads(text)["arms"].items()}
            if tuple(arms) != ARMS:
                raise ValueError(f"the arms are {', '.join(arms)}, not {', '.join(ARMS)}")
            return cls(arms)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not results of recognition: {error!r}") from None


def read_arm(fields: Mapping[str, Any]) -> Arm:
    """An arm from its plain values, as `dataclasses.asdict` gives them, through JSON if need be."""
    groups = tuple(
        Fairness(tuple(GroupResult(**each) for each in seed["groups"]), float(seed["threshold"]))
        for seed in fields["groups"]
    )
    return Arm(**{**fields, "groups": groups, "sets": tuple(fields["sets"])})
