"""Captions of faces: noun phrases that name some of a face's groups, inside sentence frames.

A caption is true of every face whose groups it names. Frames for training are apart from those held
out, which zero-shot scores are measured with; the words for groups are the same in both. Wordings
are those of the published prompts and their neighbours: "A person with dark skin.", "A masculine
person.", "A person in their 50s.", "A person with long hair.".

Captions of a bank may also say of what quality the picture is, for pictures that are more than
drawings: "an obscure, fake, or discolored photo of a person" against "a detailed photo of a woman
with diverse features".
"""

from __future__ import annotations

import random
from typing import NamedTuple

import jax
import numpy as np

from qdgs_jax.domains.faces_drawing.attributes import (
    AGE,
    AGE_EDGE,
    GENDER,
    GLASSES,
    HAIR,
    SKIN,
    FaceLabels,
)

DECADES = (1, 2, 3, 4, 5, 6, 7, 8)

NOUNS = {
    "masculine": ("man", "man", "gentleman", "masculine person", "man with masculine features"),
    "androgynous": ("androgynous person", "androgynous individual", "gender neutral person"),
    "feminine": ("woman", "woman", "lady", "feminine person", "woman with feminine features"),
    "": ("person", "person", "person", "individual", "human", "someone"),
}
SKIN_WORDS = {
    "light": ("light skin", "fair skin", "pale skin", "a light skin tone"),
    "mixed": ("mixed skin", "medium skin", "tan skin", "a medium skin tone", "olive skin"),
    "dark": ("dark skin", "deep skin", "a dark skin tone", "very dark skin"),
}
AGE_WORDS = {
    "young": ("young", "youthful", "young adult"),
    "old": ("old", "elderly", "older"),
}
HAIR_WORDS = {
    "short": ("short hair", "cropped hair", "a short haircut"),
    "long": ("long hair", "flowing hair", "shoulder length hair"),
}
GLASSES_WORDS = {
    "no glasses": ("no glasses", "nothing over the eyes"),
    "glasses": ("glasses", "spectacles", "eyeglasses"),
}
FEATURES = ("diverse features", "various features", "features of their own", "a face")
QUALITY = ("unclear", "clear")
QUALITY_WORDS = {
    "unclear": ("obscure", "fake", "discolored", "blurry", "noisy", "distorted"),
    "clear": ("detailed", "clear", "sharp", "natural", "detailed"),
}
TRAINING_FRAMES = (
    "{}",
    "{}",
    "{}.",
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "a portrait of {}",
    "a close view of {}",
    "a drawing of {}",
    "an illustration of {}",
    "this is {}",
    "here is {}",
    "there is {}",
    "i see {}",
    "look at {}",
    "the picture shows {}",
    "my neighbour is {}",
    "{} is looking at the camera",
    "{} on a plain background",
    "{} can be seen",
)
HELD_OUT_FRAMES = (
    "we are looking at {}",
    "a headshot of {}",
    "the camera has captured {}",
    "what you notice first is {}",
    "the photographer met {}",
    "{} appears in the frame",
)
FRAMES = {"training": TRAINING_FRAMES, "held out": HELD_OUT_FRAMES}
# Of captions that say of what quality the picture is: in the first place, in so many words.
QUALITY_FRAMES = {
    "training": (
        "{} photo of {}",
        "{} photo of {}",
        "{} picture of {}",
        "{} image of {}",
        "{} portrait of {}",
        "{} drawing of {}",
        "this is {} picture of {}",
        "here is {} photo of {}",
        "there is {} image of {}",
        "look at {} portrait of {}",
    ),
    "held out": (
        "we are looking at {} shot of {}",
        "{} headshot of {}",
        "the camera has made {} photo of {}",
        "what you notice first is {} picture of {}",
        "the photographer took {} image of {}",
    ),
}


class Claim(NamedTuple):
    """What a caption says; None where it says nothing.

    Attributes:
        skin, age, gender, hair, glasses: indices into the tables of groups.
        decade: 2 for the twenties, and so on.
        quality: index into `QUALITY`, of the picture.
    """

    skin: int | None = None
    age: int | None = None
    gender: int | None = None
    hair: int | None = None
    glasses: int | None = None
    decade: int | None = None
    quality: int | None = None


def _article(phrase: str) -> str:
    if phrase.startswith("someone"):
        return phrase
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def word_claim(claim: Claim, rng: random.Random) -> str:
    """A noun phrase that says what is claimed, e.g. "an old woman with dark skin"."""
    gender = "" if claim.gender is None else GENDER[claim.gender]
    noun = rng.choice(NOUNS[gender])
    their = {"masculine": "his", "feminine": "her"}.get(gender, "their")
    endings = []
    for group, names, words in (
        (claim.skin, SKIN, SKIN_WORDS),
        (claim.hair, HAIR, HAIR_WORDS),
        (claim.glasses, GLASSES, GLASSES_WORDS),
    ):
        if group is not None:
            endings.append(rng.choice(words[names[group]]))
    if not endings and rng.random() < 0.15:
        endings.append(rng.choice(FEATURES))
    rng.shuffle(endings)
    phrase = noun
    if claim.age is not None and claim.decade is None:
        word = rng.choice(AGE_WORDS[AGE[claim.age]])
        phrase = f"{word} {phrase}" if noun != "someone" else f"someone {word}"
    tail = ""
    if claim.decade is not None:
        their = rng.choice((their, "their"))
        tail = f" in {their} {'teens' if claim.decade == 1 else f'{claim.decade}0s'}"
    if endings:
        joined = " and ".join([", ".join(endings[:-1]), endings[-1]] if endings[1:] else endings)
        joiner = " who has " if " with " in noun else rng.choice((" with ", " who has "))
        tail = tail + joiner + joined
    return _article(phrase) + tail


def _word_quality(quality: str, rng: random.Random) -> str:
    """One to three adjectives with an article, e.g. "an obscure, fake, or discolored"."""
    words = rng.sample(sorted(set(QUALITY_WORDS[quality])), rng.choice((1, 1, 1, 2, 3)))
    joiner = rng.choice((" and ", " or "))
    if len(words) == 3:
        words = [f"{words[0]}, {words[1]},{joiner}{words[2]}"]
    return _article(joiner.join(words))


def _say(claim: Claim, frames: str, rng: random.Random) -> str:
    """A sentence that says what is claimed."""
    phrase = word_claim(claim, rng)
    if claim.quality is None:
        return rng.choice(FRAMES[frames]).format(phrase)
    quality = _word_quality(QUALITY[claim.quality], rng)
    return rng.choice(QUALITY_FRAMES[frames]).format(quality, phrase)


def _choose(claim: Claim, rng: random.Random) -> Claim:
    """A part of what could be claimed.

    One to three groups, age in words or by decade. Where there is a quality, every fourth claim is
    of it and up to two groups.
    """
    of_quality = claim.quality is not None and rng.random() < 0.25
    count = rng.choice((0, 0, 1, 1, 2) if of_quality else (1, 1, 2, 2, 3))
    chosen = rng.sample(("skin", "age", "gender", "hair", "glasses"), count)
    said = {name: getattr(claim, name) for name in chosen}
    if "age" in said and rng.random() < 0.4:
        said["decade"] = claim.decade
    return Claim(**said, quality=claim.quality if of_quality else None)


def _rng(key: jax.Array) -> random.Random:
    return random.Random(int(jax.random.randint(key, (), 0, np.iinfo(np.int32).max)))


def _check_frames(name: str) -> None:
    if name not in FRAMES:
        raise ValueError(f"frames is {name!r}: give one of {', '.join(map(repr, FRAMES))}.")


def captions(labels: FaceLabels, key: jax.Array, frames: str = "training") -> list[str]:
    """A true caption of each face.

    Args:
        labels: of N faces.
        key: a key of its own.
        frames: "training" or "held out".

    Returns:
        N texts, each naming one to three of the face's groups, none the picture's quality.

    Raises:
        ValueError: `frames` is neither.
    """
    _check_frames(frames)
    rng = _rng(key)
    rows = zip(*(np.asarray(values).tolist() for values in labels), strict=True)
    claims = (Claim(**dict(zip(labels._fields, row, strict=True))) for row in rows)
    return [_say(_choose(claim, rng), frames, rng) for claim in claims]


def caption_bank(
    key: jax.Array, count: int, frames: str = "training"
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Distinct captions, and the groups of faces that each is true of.

    Args:
        key: a key of its own.
        count: number of captions; some ten thousand are to be had.
        frames: "training" or "held out".

    Returns:
        Texts, and masks Float[count, n] per field of `FaceLabels`, and for the `QUALITY` of
        pictures: 1 where a caption allows a group. The decades' columns are those of `DECADES`; a
        decade rules out the other age.

    Raises:
        ValueError: `frames` is neither, or the grammar hardly finds `count` different captions.
    """
    _check_frames(frames)
    rng = _rng(key)
    found: dict[str, Claim] = {}
    for _ in range(30 * count):
        if len(found) == count:
            break
        decade = rng.choice(DECADES[1:7])
        claim = Claim(
            skin=rng.randrange(len(SKIN)),
            age=int(10 * decade >= AGE_EDGE),
            gender=rng.randrange(len(GENDER)),
            hair=rng.randrange(len(HAIR)),
            glasses=rng.randrange(len(GLASSES)),
            decade=decade,
            quality=rng.randrange(len(QUALITY)),
        )
        said = _choose(claim, rng)
        found.setdefault(_say(said, frames, rng), said)
    if len(found) < count:
        raise ValueError(f"count is {count}: the frames give about {len(found)} captions.")
    said_rows = list(found.values())

    def mask(name: str, groups: int, first: int = 0) -> np.ndarray:
        table = np.ones((count, groups), np.float32)
        for row, value in zip(table, (getattr(claim, name) for claim in said_rows), strict=True):
            if value is not None:
                row[:] = np.arange(groups) + first == value
        return table

    return list(found), {
        "skin": mask("skin", len(SKIN)),
        "age": mask("age", len(AGE)),
        "gender": mask("gender", len(GENDER)),
        "hair": mask("hair", len(HAIR)),
        "glasses": mask("glasses", len(GLASSES)),
        "decade": mask("decade", len(DECADES), DECADES[0]),
        "quality": mask("quality", len(QUALITY)),
    }
