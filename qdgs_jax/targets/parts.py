"""Which part of a step an operation belongs to, by the names in JAX's path to it.

The networks, the scoring and the search name their parts with `jax.named_scope`; what is pulled
back keeps the name of what it is the derivative of.
"""

from __future__ import annotations

import re

_FUNCTIONS = re.compile(r"\bp?jit\([^()]*\)")  # jnp.clip is no CLIP
_CLIP = (("attention", "CLIP attention"), ("mlp", "CLIP mlp"))
_PARTS = (
    ("clip", "CLIP, rest"),
    ("cutouts", "cutouts"),
    ("scoring", "scoring"),
    ("mapping", "mapping"),
    ("generator", "generator, rest"),
    ("archive", "archive"),
    ("emitter", "emitter"),
)


def part_of(path: str) -> str:
    """The part of a step that JAX's path to an operation names."""
    if not path:
        return "(no name: the compiler's own)"
    names = set(re.findall(r"\w+", _FUNCTIONS.sub("", path)))
    backward = ", backward" if "transpose" in names else ""
    block = next((name for name in names if re.fullmatch(r"b\d+", name)), None)
    if block is not None:
        return f"generator {block[1:]} x {block[1:]}{backward}"
    if "clip" in names:
        for name, part in _CLIP:
            if name in names:
                return part + backward
    for name, part in _PARTS:
        if name in names:
            return part + backward
    return "the rest of the step"


def kind_of(path: str) -> str:
    """The operation that a path ends with, such as conv_general_dilated."""
    return path.rsplit("/", 1)[-1] or "(no name: the compiler's own)"
