"""The tables of a run file that a search and its data set are described by."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    Strict,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic import NonNegativeFloat as NonNegative
from pydantic import NonNegativeInt as Index
from pydantic import PositiveFloat as Positive
from pydantic import PositiveInt as Count

from qdgs_jax.algorithms import TRAITS
from qdgs_jax.domains.prompts import split_prompt
from qdgs_jax.runs.config_errors import did_you_mean, refuse, toml_value
from qdgs_jax.runs.table import Table

BASELINE = "random"  # the algorithm that a run is compared with, and its folder in the run's
RESTARTS = ("basic", "no_improvement")
FEW_STEPS = 10  # in which a search adapts to nothing

Texts = Annotated[
    tuple[str, ...], Field(min_length=1, description="a text, or several separated by |")
]
Weights = Annotated[str, Field(min_length=1, description="embedded:NAME or a folder")]


def split_texts(prompt: object) -> tuple[str, ...]:
    """The texts that a field of a run file holds."""
    if not isinstance(prompt, str):
        raise refuse("must be a text in quotes, or several in one separated by |")
    texts = split_prompt(prompt)
    if not all(texts):
        raise refuse("must be a text, or several separated by |, none of them empty")
    return texts


class PromptPair(Table):
    """A pair of prompts that spans an axis.

    Attributes:
        positive: the texts of one side; one text in the run file, or several separated by `|`.
        negative: those of the other side.
    """

    positive: Texts
    negative: Texts

    @field_validator("positive", "negative", mode="before")
    @classmethod
    def _texts(cls, prompt: object) -> object:
        return split_texts(prompt)

    @field_validator("negative")
    @classmethod
    def _another_side(cls, texts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if set(texts) == set(info.data.get("positive", ())):
            raise refuse("must differ from positive: between the same texts nothing is measured")
        return texts

    @field_serializer("positive", "negative")
    def _joined(self, texts: tuple[str, ...]) -> str:
        return " | ".join(texts)


class ShapesDomain(Table):
    """The coloured shapes of the paper: a VAE's images, judged by a CLIP.

    Attributes:
        kind: "shapes".
        generator: `embedded:NAME`, or the folder of a ported VAE.
        clip: `embedded:NAME`, or the folder of a ported CLIP.
        cutouts: random cutouts scored per image; 0 scores the whole image.
    """

    kind: Literal["shapes"]
    generator: Weights
    clip: Weights
    cutouts: Index = 0


class FacesDomain(Table):
    """Faces, or whatever else a StyleGAN2 draws, judged by a CLIP.

    Attributes:
        kind: "faces".
        generator: `embedded:NAME`, or the folder of a ported StyleGAN2.
        clip: `embedded:NAME`, or the folder of a ported CLIP.
        cutouts: random cutouts scored per image; 0 scores the whole image.
        truncation: psi of samples and start latents; 1 leaves them as the generator draws them.
    """

    kind: Literal["faces"]
    generator: Weights
    clip: Weights
    cutouts: Index = 1
    truncation: Annotated[float, Field(gt=0.0, le=1.0)] = 0.7


class ExternalDomain(Table):
    """A generator of one's own.

    Attributes:
        kind: "external".
        generator: `module:factory`; calling the factory gives the generator.
        arguments: the factory's keyword arguments.
        folder: where its module lies, if Python does not find it otherwise; beside the run file.
        clip: `embedded:NAME`, or the folder of a ported CLIP.
        cutouts: random cutouts scored per image; 0 scores the whole image.
    """

    kind: Literal["external"]
    generator: str = Field(description='"module:factory"')
    arguments: dict[str, Any] = Field(default_factory=dict)
    folder: str = Field(default=".", min_length=1, description="a folder")
    clip: Weights
    cutouts: Index = 0

    @field_validator("generator")
    @classmethod
    def _module_and_factory(cls, name: str) -> str:
        if not re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", name):
            raise refuse('must be "module:factory", a module that Python finds and what makes it')
        return name


class EvaluationConfig(Table):
    """How latents are evaluated; docs/evaluation.md says what "auto" means.

    Attributes:
        batch: candidates evaluated at a time; 0 evaluates all of a step at once.
        dtype: type of the numbers in generator and CLIP.
        precision: of matrix products.
        remat: compute intermediate values again for the Jacobian rather than keep them.
    """

    batch: Index = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    precision: Literal["auto", "default", "high", "highest"] = "auto"
    remat: bool = False


class ObjectiveConfig(PromptPair):
    """What a good image is: near the positive texts, far from the negative ones."""

    norm_penalty: NonNegative = 0.0
    uniqueness: NonNegative = 0.0


def _two_numbers(bounds: object) -> object:
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        raise refuse("must be [low, high], two numbers")
    return bounds


def _low_below_high(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] >= bounds[1]:
        raise refuse("must be [low, high] with low < high")
    return bounds


Interval = Annotated[
    tuple[float, float],
    Strict(False),
    BeforeValidator(_two_numbers),
    AfterValidator(_low_below_high),
]


class MeasureConfig(PromptPair):
    """An axis of diversity: small near the positive texts, large near the negative ones."""

    name: str = Field(min_length=1, description="a name")
    range: Interval = Field(description="[low, high]")
    cells: Count = 50


class ArchiveConfig(Table):
    """How the archive's thresholds anneal; None is what the algorithm is meant for.

    Attributes:
        learning_rate: in [0, 1]; 1 with `threshold_min` -inf follows the elites (MAP-Elites).
        threshold_min: where thresholds start, a finite number or -inf.
        qd_score_offset: subtracted from every objective in the QD-score.
        cvt_cells: cells around as many centroids, spread evenly over the measures' ranges, in place
            of the grid; the measures' own `cells` then only lay out pictures of the archive.
        dtype: in what precision latents are stored.
    """

    learning_rate: float | None = Field(default=None, ge=0.0, le=1.0)
    threshold_min: Annotated[float, Field(allow_inf_nan=True)] | None = None
    qd_score_offset: float = 0.0
    cvt_cells: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"

    @field_validator("threshold_min")
    @classmethod
    def _finite_or_minus_inf(cls, value: float | None) -> float | None:
        if value is not None and (math.isnan(value) or value == math.inf):
            raise refuse("must be a finite number or -inf")
        return value


class SearchConfig(Table):
    """The algorithm, its budget and its settings (one step evaluates emitters x (1 + branches)).

    Attributes:
        algorithm: a name of docs/algorithms.md.
        evaluations: the whole budget, finding start latents included.
        emitters: independent emitters.
        branches: candidates per emitter and step; the parent's own evaluation comes on top.
        sigma0: first step size of the sampled coefficients or latents.
        step_size: learning rate of the parents' optimiser.
        restart: when an emitter starts afresh.
        normalization: what branches make of a parent's gradients.
        bounds: (low, high) of every component of a normalised latent; None sets no bounds.
        start_batches: batches that start latents are looked for in.
        start_batch_size: latents per batch.
        chunk: steps from one row of metrics to the next.
        checkpoint_seconds: time from one checkpoint to the next; 0 writes one after each chunk.
    """

    algorithm: str = Field(default="cma_maega", description="the name of an algorithm")
    evaluations: Count = 20_000
    emitters: Count = 8
    branches: Count = 3
    sigma0: Positive = 0.5
    step_size: Positive = 0.5
    restart: Literal["basic", "no_improvement"] | int = "basic"
    normalization: Literal["none", "unit", "orthonormal"] = "unit"
    bounds: Interval | None = Field(default=None, description="[low, high]")
    start_batches: Count = 32
    start_batch_size: Count = 16
    chunk: Count = 25
    checkpoint_seconds: NonNegative = 120.0

    @field_validator("algorithm")
    @classmethod
    def _known_algorithm(cls, name: str) -> str:
        if name not in TRAITS:
            hint = did_you_mean(name, TRAITS)
            raise refuse(
                "unknown algorithm{hint} are {names}",
                hint=f"{hint} Known" if hint else "; known",
                names=", ".join(map(toml_value, sorted(TRAITS))),
            )
        return name

    @field_validator("restart", mode="before")
    @classmethod
    def _restart_rule(cls, rule: object) -> object:
        is_count = isinstance(rule, int) and not isinstance(rule, bool) and rule >= 1
        if not is_count and rule not in RESTARTS:
            raise refuse('must be "basic", "no_improvement" or a number of steps of at least 1')
        return rule

    @model_validator(mode="after")
    def _bounded_algorithm(self) -> SearchConfig:
        if self.bounds is None:
            return self
        if not TRAITS[self.algorithm].bounded:
            raise refuse(
                "bounds: the algorithm {name} knows none; leave them out, or choose another one",
                name=toml_value(self.algorithm),
            )
        return self

    @model_validator(mode="after")
    def _enough_start_latents(self) -> SearchConfig:
        if self.algorithm != BASELINE and self.emitters > self.start_samples:
            raise refuse(
                "emitters = {emitters}: each starts from a latent of its own, and start_batches x "
                "start_batch_size = {samples} are looked at; give fewer emitters or more of these",
                emitters=self.emitters,
                samples=self.start_samples,
            )
        return self

    @property
    def start_samples(self) -> int:
        """Latents that start latents are chosen from."""
        return self.start_batches * self.start_batch_size

    @property
    def start_evaluations(self) -> int:
        """Evaluations before the first step: samples to choose from, then the chosen ones."""
        return (0 if self.algorithm == BASELINE else self.start_samples) + self.emitters

    @property
    def step_evaluations(self) -> int:
        """Evaluations of one step, the parents' own included."""
        return self.emitters * (1 + self.branches)

    @property
    def steps(self) -> int:
        """Steps that the budget reaches for; less than 1 if it reaches for none."""
        return (self.evaluations - self.start_evaluations) // self.step_evaluations

    @property
    def left_over(self) -> str | None:
        """What of the budget no whole step fits into, in words; None if nothing is left."""
        done = self.start_evaluations + self.steps * self.step_evaluations
        if done == self.evaluations:
            return None
        return (
            f"{done:,} of the {self.evaluations:,} evaluations will be run: the start takes "
            f"{self.start_evaluations:,} and each of {self.steps:,} steps {self.step_evaluations:,}"
        )

    @property
    def few_steps(self) -> str | None:
        """How many steps there are where a search can adapt to nothing in them; None for enough."""
        if self.algorithm == BASELINE or self.steps >= FEW_STEPS:
            return None
        return (
            f"the budget is {self.steps} step{'' if self.steps == 1 else 's'} of "
            f"{self.step_evaluations:,} evaluations, and a search needs tens of them to find more "
            "than random sampling does: give more evaluations or fewer emitters"
        )
