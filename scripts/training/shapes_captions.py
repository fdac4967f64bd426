"""A caption grammar for drawn shapes: texts, and for each the scenes that it is true of.

A caption is a noun phrase about colour, shape, kind and size inside a sentence frame. Its meaning
is four sets; a drawn scene fits the caption as far as it lies in all of them. Training uses
`caption_bank` only; `HELD_OUT_FRAMES` are the sentences that zero-shot scores are measured with,
none of which is a training frame.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from filler_words import fillers

from qdgs_jax.domains.shapes_drawing import COLOURS, KINDS, SHAPES

SIZES = ("small", "medium", "large")

COLOUR_WORDS = {
    "red": ("red", "red", "red", "crimson", "scarlet"),
    "green": ("green", "green", "green", "emerald"),
    "blue": ("blue", "blue", "blue", "navy"),
    "yellow": ("yellow", "yellow", "golden"),
    "orange": ("orange", "orange", "tangerine"),
    "purple": ("purple", "purple", "violet"),
    "cyan": ("cyan", "cyan", "turquoise"),
    "pink": ("pink", "pink", "rosy"),
    "black": ("black", "black", "dark"),
}
SHAPE_WORDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("triangle",): (
        *("triangle",) * 6,
        "triangle with 3 edges",
        "triangle with 3 sides",
        "triangle with three corners",
        "shape with 3 edges",
        "shape with three corners",
        "triangular shape",
    ),
    ("square",): (*("square",) * 6, "square with 4 edges", "square with equal sides", "box"),
    ("diamond",): (*("diamond",) * 6, "rhombus", "diamond with 4 edges", "lozenge"),
    ("square", "diamond"): (
        "square or diamond",
        "square or diamond with 4 edges",
        "shape with 4 edges",
        "shape with four corners",
        "diamond or square with four sides",
    ),
    ("circle",): (*("circle",) * 6, "disc", "round shape", "shape without corners"),
    ("pentagon",): (*("pentagon",) * 6, "pentagon with 5 edges", "shape with five equal sides"),
    ("star",): (*("star",) * 6, "star with 5 points", "pointed star", "shape with five points"),
    ("triangle", "square", "diamond", "pentagon"): ("polygon", "shape with straight edges"),
    SHAPES: ("shape", "shape", "shape", "shape", "object", "form", "figure"),
}
KIND_WORDS = {
    "clean": ("regular", "clean", "sharp", "perfect", "crisp", "neat"),
    "blurred": ("blurry", "blurred", "fuzzy", "unsharp"),
    "broken": ("broken", "damaged", "incomplete", "shattered", "irregular"),
}
SIZE_WORDS = {
    "small": ("small", "tiny", "little"),
    "medium": ("medium", "medium sized"),
    "large": ("large", "big", "huge"),
}
SPLATTER_WORDS = (
    "splatters of {c}",
    "splashes of {c}",
    "a splatter of {c}",
    "spots of {c}",
    "stains of {c}",
    "a mess of {c}",
    "random blobs of {c}",
    "splattered {c}",
)
FRAMES = (
    "{}",
    "{}",
    "{}",
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "a drawing of {}",
    "a sketch of {}",
    "a detailed photo of {}",
    "a close view of {}",
    "an illustration of {}",
    "a rendering of {}",
    "a painting showing {}",
    "this is {}",
    "here is {}",
    "there is {}",
    "it is {}",
    "i see {}",
    "look at {}",
    "you can find {} here",
    "{} on a white background",
    "{} on white",
    "{} in the middle",
    "{} in the picture",
    "{} is shown",
    "{} can be seen",
    "{} lies on paper",
    "only {}",
    "one photo with {} inside",
    "the picture contains {}",
    "my drawing of {}",
    "someone drew {}",
)
HELD_OUT_FRAMES = (
    "we are looking at {}",
    "the artist made {}",
    "a simple graphic with {} on it",
    "what you notice first is {}",
    "an icon that depicts {}",
    "{} was printed on the page",
)


class Caption(NamedTuple):
    """A text and what it allows, as sets of names."""

    text: str
    colours: tuple[str, ...]
    shapes: tuple[str, ...]
    kinds: tuple[str, ...]
    sizes: tuple[str, ...]


def _article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _noun_phrase(rng: random.Random) -> Caption:
    """A phrase about one shape, e.g. "a small red triangle"."""
    shapes = rng.choice(list(SHAPE_WORDS)) if rng.random() < 0.75 else SHAPES
    noun = rng.choice(SHAPE_WORDS[shapes])
    if shapes != SHAPES and rng.random() < 0.12:
        other = (rng.choice(SHAPES),)
        joiner = rng.choice((" or ", " or a "))
        noun, shapes = f"{noun}{joiner}{rng.choice(SHAPE_WORDS[other])}", (*shapes, *other)
    colours, colour, kinds, kind = COLOURS, "", ("clean", "blurred", "blended", "broken"), ""
    if rng.random() < 0.65:
        colours = (rng.choice(COLOURS),)
        colour = rng.choice(COLOUR_WORDS[colours[0]])
        if rng.random() < 0.12:
            second = rng.choice([c for c in COLOURS if c not in colours])
            joiner = rng.choice((" or ", " and ", " blended with "))
            colours, colour = (colours[0], second), colour + joiner + second
            if joiner != " or ":
                kinds = ("blended",)
    elif rng.random() < 0.1:
        kinds, colour = ("blended",), rng.choice(("multicolored", "two colored", "blended"))
    if kinds != ("blended",) and rng.random() < 0.3:
        name = rng.choice(list(KIND_WORDS))
        kinds, kind = (name,), rng.choice(KIND_WORDS[name])
    sizes, size = SIZES, ""
    if rng.random() < 0.15:
        sizes = (rng.choice(SIZES),)
        size = rng.choice(SIZE_WORDS[sizes[0]])
    adjectives = [word for word in (size, kind) if word]
    rng.shuffle(adjectives)
    if colour and rng.random() < 0.25:
        tail = rng.choice(("{n} that is {c}", "{n} in {c}", "{n} colored {c}", "{n} of {c} color"))
        phrase = " ".join([*adjectives, tail.format(n=noun, c=colour)])
    else:
        phrase = " ".join([*adjectives, *([colour] if colour else []), noun])
    if rng.random() < 0.8:
        phrase = _article(phrase)
    return Caption(phrase, colours, shapes, kinds, sizes)


def _splatter(rng: random.Random) -> Caption:
    """A phrase about scattered paint without a shape."""
    colours, word = COLOURS, rng.choice(("colors", "color", "paint", "many colors", "ink"))
    if rng.random() < 0.5:
        colours = (rng.choice(COLOURS),)
        word = rng.choice(COLOUR_WORDS[colours[0]]) + rng.choice((" color", " paint", " ink", ""))
        if rng.random() < 0.3:
            second = rng.choice([c for c in COLOURS if c not in colours])
            colours, word = (*colours, second), f"{word} and {second}"
    text = rng.choice(SPLATTER_WORDS).format(c=word)
    return Caption(text, colours, SHAPES, ("splatter",), SIZES)


def sample_caption(rng: random.Random) -> Caption:
    """One training caption."""
    caption = _splatter(rng) if rng.random() < 0.1 else _noun_phrase(rng)
    frame = rng.choice(FRAMES)
    if rng.random() < 0.5:
        frame = f"{fillers(rng)} {{}} {fillers(rng)}"
    return caption._replace(text=" ".join(frame.format(caption.text).split()))


def caption_bank(seed: int, count: int) -> tuple[list[str], dict[str, np.ndarray]]:
    """Distinct training captions and the scenes they allow.

    Returns:
        Texts, and masks Float[count, n] per attribute: "colours", "shapes", "kinds", "sizes".
    """
    rng = random.Random(seed)
    captions: dict[str, Caption] = {}
    while len(captions) < count:
        caption = sample_caption(rng)
        captions.setdefault(caption.text, caption)
    rows = list(captions.values())

    def mask(names: Sequence[str], chosen: list[tuple[str, ...]]) -> np.ndarray:
        return np.array([[name in allowed for name in names] for allowed in chosen], np.float32)

    masks = {
        "colours": mask(COLOURS, [row.colours for row in rows]),
        "shapes": mask(SHAPES, [row.shapes for row in rows]),
        "kinds": mask(KINDS, [row.kinds for row in rows]),
        "sizes": mask(SIZES, [row.sizes for row in rows]),
    }
    return [row.text for row in rows], masks
