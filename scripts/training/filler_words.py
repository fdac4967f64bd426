"""Words around captions that say nothing of the picture: a CLIP learns to pass over them."""

from __future__ import annotations

import random

FILLERS = """
the of and to in is it with as for on that by at from one all have new more an was we will can
page time about if my has but our other do no information they site up may what which their news
out use any there see so his when here web also now people been were than get make some good many
look work great just first very well only after help world view line life where home day nice big
design art paper image print card icon logo sign graphic made maker notice depict artist page
pretty simple basic plain lovely modern classic kind style quality high low computer screen board
wall table book letter school house street city
""".split()  # noqa: SIM905 (prose reads better than a list)


def fillers(rng: random.Random) -> str:
    """Up to three words that say nothing about the picture, some of them nonsense."""
    words = []
    for _ in range(rng.randrange(4)):
        nonsense = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 8)))
        words.append(rng.choice(FILLERS) if rng.random() < 0.75 else nonsense)
    return " ".join(words)


def with_fillers(text: str, rng: random.Random) -> str:
    """The text, often with fillers around it, and sometimes with a full stop."""
    if rng.random() < 0.4:
        text = " ".join(f"{fillers(rng)} {text} {fillers(rng)}".split())
    return text if text.endswith(".") or rng.random() < 0.7 else f"{text}."
