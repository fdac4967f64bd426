"""Does pretraining on balanced people make recognition fairer? The paper's experiment, small.

Chang et al. 2024 (arXiv:2312.14369), section 5.2: a network is pretrained with AdaFace on people
that a generator drew, found by a search (QD) or at random (Rand), 15,000 or 50,000 latents, or on
none; then it learns from real faces with a new head, and verifies pairs of dark and of light faces.
Here real faces are drawn ones (`drawn`), sizes are in the paper's proportion, 3 to 10, networks are
small, and several seeds of each arm are trained together. A seed has networks and real people of
its own; the people to verify are the same for all.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from qdgs_jax import keys
from qdgs_jax.datasets.png import decode_png
from qdgs_jax.datasets.shards import read_table
from qdgs_jax.ports.faces.pairs import PairIndex
from qdgs_jax.train.faces.comparison_result import KINDS, NONE, SIZES, SMALL, Arm, Comparison
from qdgs_jax.train.faces.drawn import (
    Faces,
    choose_pairs,
    choose_sets,
    draw_tested,
    draw_trained,
)
from qdgs_jax.train.faces.embed import embed_faces
from qdgs_jax.train.faces.fairness import verify_groups
from qdgs_jax.train.faces.recipe import (
    AugmentationTable,
    HeadTable,
    NetworkTable,
    OptimizerTable,
    Recipe,
    milestones_of,
)
from qdgs_jax.train.faces.seeds import SeedNetworks, train_seeds
from qdgs_jax.train.faces.verification import pair_distances, verify_folds
from qdgs_jax.train.loader import area_average

SCALE = 32.0  # of logits: 64, the paper's, keeps short trainings of small networks from learning
FEWEST = 2  # pictures that everybody keeps
Progress = Callable[[float], None]  # finished share in [0, 1]
_TOGETHER = 64  # pictures shrunk together


class RecognitionSettings(Protocol):
    """What the experiment reads of a run file's [recognition] table."""

    @property
    def seeds(self) -> int:
        """Networks of each arm."""

    @property
    def side(self) -> int:
        """Width and height of the images that networks see."""

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Channels of the networks' four stages."""

    @property
    def embed_dim(self) -> int:
        """Length of embeddings."""

    @property
    def people(self) -> int:
        """Drawn people to learn from."""

    @property
    def pictures(self) -> int:
        """Pictures of each."""

    @property
    def test_people(self) -> int:
        """Drawn people to verify, of each skin group."""

    @property
    def test_pictures(self) -> int:
        """Pictures of each."""

    @property
    def pairs(self) -> int:
        """Pairs of each skin group, and of each set."""

    @property
    def pretrain_epochs(self) -> int:
        """Epochs on generated people."""

    @property
    def epochs(self) -> int:
        """Epochs on drawn people."""

    @property
    def batch_size(self) -> int:
        """Images per step."""

    @property
    def learning_rate(self) -> float:
        """At the start of both trainings."""


@dataclasses.dataclass(frozen=True, eq=False)
class People:
    """Generated people to pretrain on.

    Attributes:
        images: UInt8[N, S, S, 3].
        people: Int[N], from 0; a person's pictures are together.
        labels: Int[N], classes of the run's measures.
        latents: Int[N], the latent that each picture shows under some augmentation.
    """

    images: np.ndarray
    people: np.ndarray
    labels: np.ndarray
    latents: np.ndarray

    @property
    def count(self) -> int:
        """How many people there are."""
        return int(self.people.max()) + 1

    def take(self, rows: np.ndarray) -> People:
        """Some of the pictures; people are numbered anew."""
        return People(
            images=self.images[rows],
            people=np.unique(self.people[rows], return_inverse=True)[1],
            labels=self.labels[rows],
            latents=self.latents[rows],
        )


def load_people(folder: str | os.PathLike[str], side: int) -> People:
    """Read generated people at the size that networks see.

    Args:
        folder: of a data set with subjects.
        side: pixels per side S to average the pictures down to.

    Raises:
        ShardError: there is no complete data set.
        ValueError: the pictures are smaller, or there are no subjects.
    """
    table = read_table(folder)
    if "subject" not in table.column_names:
        raise ValueError(f"{folder} has no column 'subject': write a data set with subjects.")
    contents = [picture["bytes"].as_py() for picture in table["image"]]
    parts = (contents[at : at + _TOGETHER] for at in range(0, len(contents), _TOGETHER))
    images = np.concatenate([area_average(np.stack(list(map(decode_png, p))), side) for p in parts])
    _, people = np.unique(table["subject"].to_numpy(), return_inverse=True)
    shown = table["augmentation"].to_numpy()
    # Pictures of a latent follow each other, each time from the first augmentation on.
    latents = np.cumsum(shown == shown.min())
    found = People(images, people, table["label"].to_numpy(), latents)
    return found.take(np.argsort(people, kind="stable"))


def some_people(people: People, share: float) -> People:
    """A share of the people, of each class in the same proportion; everybody keeps all pictures.

    Those of a class that were chosen first are taken, who may be the most distinct.

    Args:
        people: to choose from.
        share: in (0, 1].
    """
    first = np.unique(people.people, return_index=True)[1]
    classes = people.labels[first]
    chosen: list[np.ndarray] = []
    for each in np.unique(classes):
        members = np.flatnonzero(classes == each)
        chosen.append(members[: max(1, round(share * len(members)))])
    return people.take(np.flatnonzero(np.isin(people.people, np.concatenate(chosen))))


def even(people: Mapping[str, People], seed: int) -> dict[str, People]:
    """The same numbers of people and of pictures in each: what differs is who they are.

    People who were chosen last are left out, and at random pictures of those who have more than
    `FEWEST`.
    """
    count = min(each.count for each in people.values())
    found = {name: each.take(np.flatnonzero(each.people < count)) for name, each in people.items()}
    least = min(len(each.images) for each in found.values())
    for name, each in found.items():
        rng = keys.numpy_stream(seed, f"recognition/even pictures {name}")
        first = np.searchsorted(each.people, each.people)
        spare = np.flatnonzero(np.arange(len(each.people)) - first >= FEWEST)
        surplus = min(len(each.people) - least, len(spare))
        dropped = rng.choice(spare, surplus, replace=False)
        found[name] = each.take(np.setdiff1d(np.arange(len(each.people)), dropped))
    return found


def compare(
    settings: RecognitionSettings,
    people: Mapping[str, People],
    seed: int,
    progress: Progress = lambda share: None,
) -> Comparison:
    """Pretrain, train and verify the networks of all arms.

    Args:
        settings: of the table [recognition].
        people: those of "run" and of "baseline", at the networks' size.
        seed: of everything that is drawn or chosen.
        progress: told the finished share.

    Raises:
        ValueError: there are too few people or pictures to verify.
    """
    pretraining, training = recipe(settings, settings.pretrain_epochs), recipe(settings)
    given = _people_of_arms(people, seed)
    tested = draw_tested(seed, settings.test_people, settings.test_pictures, settings.side)
    pairs = choose_pairs(seed, tested, settings.pairs)
    sets = choose_sets(seed, tested, settings.pairs)
    streams = keys.numpy_stream(seed, "recognition/seeds")
    seeds = tuple(int(each) for each in streams.integers(2**31, size=settings.seeds))
    images, identities = _real_people(settings, seeds)
    real = settings.epochs * images.shape[1]
    first = {
        arm: 0 if found is None else settings.pretrain_epochs * len(found.images)
        for arm, found in given.items()
    }
    total = sum(first.values()) + real * len(given)
    results, done = {}, 0
    for arm, found in given.items():
        start: SeedNetworks | None = None
        if found is not None:
            part = _part(progress, done / total, first[arm] / total)
            start = train_seeds(pretraining, found.images, found.people, seeds, progress=part)
        done += first[arm]
        part = _part(progress, done / total, real / total)
        networks = train_seeds(training, images, identities, seeds, start=start, progress=part)
        done += real
        results[arm] = _verified(networks, found, tested, pairs, sets)
    return Comparison(results)


def _part(progress: Progress, begun: float, share: float) -> Progress:
    """Tells the progress of a part as that of the whole."""
    return lambda part: progress(min(1.0, begun + share * part))


def recipe(settings: RecognitionSettings, epochs: int | None = None) -> Recipe:
    """The paper's recipe for a small network, its steps at the same shares of the epochs."""
    epochs = settings.epochs if epochs is None else epochs
    return Recipe(
        network=NetworkTable(
            depth=10,
            input_size=settings.side,
            embed_dim=settings.embed_dim,
            widths=settings.widths,
            dropout=0.0,
        ),
        head=HeadTable(kind="adaface", scale=SCALE),
        optimizer=OptimizerTable(
            epochs=epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            milestones=milestones_of(epochs),
        ),
        augmentation=AugmentationTable(flip=0.5, crop=0.0, low_resolution=0.0, colour=0.0),
    )


def _people_of_arms(people: Mapping[str, People], seed: int) -> dict[str, People | None]:
    """The people that each arm is pretrained on, as many of both kinds."""
    given: dict[str, People | None] = {NONE: None}
    for size in SIZES:
        share = 1.0 if size == SIZES[-1] else SMALL
        chosen = {kind: some_people(people[role], share) for kind, role in KINDS.items()}
        given |= {f"{kind}{size}": each for kind, each in even(chosen, seed).items()}
    return given


def _real_people(
    settings: RecognitionSettings, seeds: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures UInt8[G, N, S, S, 3] and people Int[G, N] of each seed."""
    drawn = [draw_trained(s, settings.people, settings.pictures, settings.side) for s in seeds]
    return np.stack([each.images for each in drawn]), np.stack([each.people for each in drawn])


def _verified(
    networks: SeedNetworks,
    people: People | None,
    tested: Faces,
    pairs: PairIndex,
    sets: Mapping[str, PairIndex],
) -> Arm:
    """Verify pairs with the networks of all seeds."""
    groups, accuracies = [], []
    for number in range(len(networks)):
        embeddings, _ = embed_faces(networks[number], tested.images)
        groups.append(verify_groups(pair_distances(embeddings, pairs), pairs.same, pairs.groups))
        accuracies.append(
            {
                name: verify_folds(pair_distances(embeddings, index), index.same).accuracy
                for name, index in sets.items()
            }
        )
    return Arm(
        latents=0 if people is None else len(np.unique(people.latents)),
        people=0 if people is None else people.count,
        images=0 if people is None else len(people.images),
        groups=tuple(groups),
        sets=tuple(accuracies),
    )
