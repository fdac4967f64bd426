"""A drawn stand-in for the sets of real faces: identities to learn from, and pairs to verify.

People to learn from are drawn in FFHQ's proportions of skin and age, so a network that learns from
them sees few dark faces, as one does that learns from photographs of the web. Those to verify are
others, as many of each skin group, as RFW has it (Wang et al. 2019, arXiv:1812.00194): the faces of
an impostor pair are of one skin group, one age group and one gender, so that nobody is told apart
by what everybody sees. Pictures of a person differ in light, pose, expression, hair style, glasses,
clothes and background. They are aligned and resized as the people of a run are.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax import keys
from qdgs_jax.datasets.align import SIDE, fit
from qdgs_jax.datasets.manifest import Manifest
from qdgs_jax.datasets.real_faces import write_identities
from qdgs_jax.domains.faces_drawing import (
    POPULATIONS,
    SKIN,
    FaceAttributes,
    Identity,
    draw,
    label_faces,
    sample_identities,
    vary,
)
from qdgs_jax.ports.faces.pairs import PairIndex
from qdgs_jax.train.loader import area_average

TRAINED, TESTED = "ffhq", "balanced"  # populations of people
PICTURED = "ffhq"  # and of hair styles and glasses
SETS = ("any", "pose", "hair")  # of pairs in FFHQ's proportions, see `choose_sets`
TURNED = 0.25  # radians between the heads of a pair of "pose"
DRAWN_SIZE = 64  # pixels of a drawing, as of the embedded generator's faces
_TOGETHER = 64  # pictures drawn and aligned together
_OVERSAMPLED = 2  # people drawn for each that is tested, so that every skin group has enough


@dataclasses.dataclass(frozen=True, eq=False)
class Faces:
    """Pictures of N faces of K people.

    Attributes:
        images: UInt8[N, S, S, 3].
        people: Int[N], the person of each picture, 0 to K - 1; a person's pictures are together.
        groups: Int[N, 3], skin, age and gender groups of each picture's person.
        yaw: Float[N], in radians.
        hair: Int[N], short or long.
        identities: the K people.
    """

    images: np.ndarray
    people: np.ndarray
    groups: np.ndarray
    yaw: np.ndarray
    hair: np.ndarray
    identities: Identity


def draw_trained(
    seed: int, people: int, images: int, side: int, population: str = TRAINED
) -> Faces:
    """People to learn from, in FFHQ's proportions.

    Args:
        seed: of the people.
        people: how many.
        images: pictures of each.
        side: pixels per side of the pictures, at most 112.
        population: another one than FFHQ's, by its name.
    """
    who_key, how_key = jax.random.split(keys.stream(keys.root(seed), "recognition/trained"))
    return _draw(how_key, sample_identities(who_key, people, population), images, side)


def draw_tested(seed: int, people: int, images: int, side: int) -> Faces:
    """People to verify, `people` of each skin group in the order of `SKIN`; see `draw_trained`.

    They are drawn from a stream of their own, so that nobody is in both.
    """
    who_key, how_key = jax.random.split(keys.stream(keys.root(seed), "recognition/tested"))
    drawn = sample_identities(who_key, len(SKIN) * (_OVERSAMPLED * people + 20), TESTED)
    skin = np.asarray(label_faces(vary(who_key, drawn, 1, PICTURED)).skin)
    chosen = np.concatenate([np.flatnonzero(skin == group)[:people] for group in range(len(SKIN))])
    return _draw(how_key, jax.tree.map(lambda values: values[chosen], drawn), images, side)


def choose_pairs(seed: int, faces: Faces, pairs: int) -> PairIndex:
    """Pairs within each skin group, half of them of one person, for accuracies by group.

    Args:
        seed: of the choice.
        faces: people with several pictures each.
        pairs: of each skin group, an even number. A picture may be in several, a pair is in once.

    Raises:
        ValueError: `pairs` is odd, or there are not so many pairs in a group.
    """
    rng = keys.numpy_stream(seed, "recognition/pairs")
    found = []
    for number in range(len(SKIN)):
        members = np.flatnonzero(faces.groups[:, 0] == number)
        first, second = (members[index] for index in np.triu_indices(len(members), 1))
        # Impostors are hard, as RFW's are: their age and gender are one, too.
        alike = (faces.groups[first] == faces.groups[second]).all(axis=1)
        first, second = first[alike], second[alike]
        found.append(_choose(rng, faces, first, second, pairs, np.ones(len(first))))
    return _joined(faces, np.concatenate(found))


def choose_sets(seed: int, faces: Faces, pairs: int) -> dict[str, PairIndex]:
    """Sets of pairs in FFHQ's proportions of skin, as benchmarks of photographs are biased.

    "any" stands for LFW: any two pictures. In "pose" heads turn apart, as in CFP-FP and CPLFW. In
    "hair" one has long hair and the other short, a change of looks as in CALFW and AgeDB-30. See
    `choose_pairs`; impostors are any two people here.
    """
    share = np.asarray(POPULATIONS[TRAINED].skin)[faces.groups[:, 0]]
    first, second = np.triu_indices(len(faces.people), 1)
    weights = np.where(
        faces.people[first] == faces.people[second], share[first], share[first] * share[second]
    )
    turned = np.abs(faces.yaw[first] - faces.yaw[second]) >= TURNED
    apart = (np.ones(len(first), bool), turned, faces.hair[first] != faces.hair[second])
    sets = {}
    for name, some in zip(SETS, apart, strict=True):
        rng = keys.numpy_stream(seed, f"recognition/set {name}")
        chosen = _choose(rng, faces, first[some], second[some], pairs, weights[some])
        sets[name] = _joined(faces, chosen)
    return sets


def write_faces(faces: Faces, out: str | os.PathLike[str], *, shard_size: int = 1000) -> Manifest:
    """Write people as shards, as imported sets of real faces are written."""
    source = {"format": "drawn faces", "people": len(faces.identities.skin)}
    return write_identities(out, faces.images, faces.people, source=source, shard_size=shard_size)


def _choose(
    rng: np.random.Generator,
    faces: Faces,
    first: np.ndarray,
    second: np.ndarray,
    pairs: int,
    weights: np.ndarray,
) -> np.ndarray:
    """Choose among pairs, half of one person, by weights: Int[pairs, 2] in a random order."""
    if pairs < 2 or pairs % 2:
        raise ValueError(f"pairs is {pairs}: give an even number, half of them of one person.")
    same = faces.people[first] == faces.people[second]
    taken = []
    for word, possible in (("one person", same), ("two people", ~same)):
        places = np.flatnonzero(possible)
        if len(places) < pairs // 2:
            raise ValueError(
                f"there are {len(places)} pairs of {word}, {pairs // 2} are wanted: give fewer "
                "pairs, or more people or pictures of each."
            )
        chances = weights[places] / weights[places].sum()
        taken.append(rng.choice(places, pairs // 2, replace=False, p=chances))
    # Folds are cut in order: shuffled, each has pairs of both kinds.
    order = rng.permutation(np.concatenate(taken))
    return np.stack([first[order], second[order]], axis=1)


def _joined(faces: Faces, chosen: np.ndarray) -> PairIndex:
    first, second = chosen.T
    same = faces.people[first] == faces.people[second]
    return PairIndex(first, second, same, tuple(SKIN[group] for group in faces.groups[first, 0]))


def _draw(key: jax.Array, people: Identity, images: int, side: int) -> Faces:
    """Pictures of people, a number of each."""
    shown = vary(key, people, images, PICTURED)
    labels = label_faces(shown)
    return Faces(
        images=np.concatenate(list(_pictures(shown, side)))[: len(shown.yaw)],
        people=np.repeat(np.arange(len(people.skin)), images),
        groups=np.stack([labels.skin, labels.age, labels.gender], axis=1),
        yaw=np.asarray(shown.yaw),
        hair=np.asarray(labels.hair),
        identities=people,
    )


def _pictures(faces: FaceAttributes, side: int) -> Iterator[np.ndarray]:
    """Aligned pictures UInt8[B, side, side, 3] of faces; the last batch repeats the last face."""
    count = len(faces.yaw)
    for start in range(0, count, _TOGETHER):
        rows = np.minimum(np.arange(start, start + _TOGETHER), count - 1)
        aligned = _aligned(jax.tree.map(lambda values, rows=rows: values[rows], faces))
        yield area_average(np.asarray(aligned), side)


@jax.jit
def _aligned(faces: FaceAttributes) -> jax.Array:
    """Faces as `qdgs generate` writes people: drawn, in bytes, moved to ArcFace's template."""
    drawn = draw(faces, DRAWN_SIZE)
    pictures = jnp.round(jnp.clip(127.5 * (drawn + 1.0), 0, 255)).astype(jnp.uint8)
    return fit(pictures, "arcface", SIDE)
