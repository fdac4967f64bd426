"""Where in a checkpoint a model's state dict lies, and what its names are wrapped in.

Training programs put a state dict below another key (`state_dict`, `model`, ...) and their wrappers
put prefixes before its names (`module.`, `_orig_mod.`, ...), in any nesting. Both are peeled by one
rule for every family: a family says by which tensors it is known, and the shallowest dictionary
that has one of them, behind nothing but wrappers, is the model's. What is not behind the same
wrappers, such as a training head, is another part of the file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from qdgs_jax.ports.errors import CheckpointError, printable, show
from qdgs_jax.ports.readers.allowed import Record
from qdgs_jax.ports.readers.tensors import Tensor
from qdgs_jax.ports.readers.tree import named_tensors
from qdgs_jax.ports.readers.values import Data

Tensors = dict[str, Tensor]
# Keys of dictionaries, and prefixes of names; of several that fit, the first counts.
_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "weights",
    "params",
    "module",
    "backbone",
    "clip",
    "clip_model",
    "generator",
    "vae",
    "ema",
    "ema_model",
    "model_ema",
    "state_dict_ema",
    "ema_state_dict",
    "params_ema",
)
# Parts of names that parallel, compiled, sharded and private modules add, at any place.
_TRANSPARENT = {
    "module",
    "_module",
    "_orig_mod",
    "_forward_module",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
}
_COUNTERS = {"n_averaged"}  # what wrappers keep beside the model: PyTorch's of averaged models
_DEEPEST = 8
_LISTED = 6


@dataclasses.dataclass(frozen=True)
class Found:
    """A model's state dict.

    Attributes:
        tensors: by name, without wrappers.
        path: keys that lead to the dictionary, and the prefix that was taken off its names.
        around: the dictionaries on the way to it, the innermost first.
    """

    tensors: Tensors
    path: tuple[str, ...]
    around: tuple[Mapping[Any, Data], ...]

    @property
    def details(self) -> dict[str, str]:
        """What a summary says of the place; nothing for a bare state dict."""
        return {"found below": ".".join(self.path)} if self.path else {}

    def beside(self, name: str) -> Tensor | None:
        """Look for a tensor outside the state dict, in the dictionaries around it."""
        for node in self.around:
            if type(node.get(name)) is Tensor:
                return node[name]
        return None


def find_weights(
    root: Data, model: str, known_by: tuple[str, ...], keys: tuple[str, ...] = ()
) -> Found:
    """Find the state dict of a model.

    Args:
        root: the tree of a checkpoint.
        model: what it is looked for, for the error.
        known_by: names of tensors, any of which tells that this is the model.
        keys: keys of this family's own that may lead to it, before the common ones.

    Raises:
        CheckpointError: if there is none; the message says what the file holds at its top.
    """
    for node, path, around in _nodes(root, (*keys, *_WRAPPERS)):
        tensors = _tensors(node)
        prefix = _prefix(tensors, known_by)
        if prefix is not None:
            return Found(_peeled(tensors, prefix), (*path, *prefix), around)
    wanted = ", nor ".join(known_by)
    raise CheckpointError(f"This is not {model}: there is no {wanted}. {top_of(root)}")


def top_of(root: Data) -> str:
    """Say in a sentence what a checkpoint holds at its top."""
    if type(root) is Record:
        return f"The file holds a module {show(root.class_name)} with {_names(root.state)}."
    if type(root) is not dict:
        return f"The file holds no state dict but {show(root)}."
    if not root:
        return "The file holds an empty dictionary."
    return f"The file holds {_names(root)}."


def _nodes(
    root: Data, keys: tuple[str, ...]
) -> Iterator[tuple[Data, tuple[str, ...], tuple[Mapping[Any, Data], ...]]]:
    """Walk through the parts of a tree that may be a state dict, the shallowest first."""
    level: list[tuple[Data, tuple[str, ...], tuple[Mapping[Any, Data], ...]]] = [(root, (), ())]
    for _ in range(_DEEPEST):
        yield from level
        deeper = []
        for node, path, around in level:
            if type(node) is dict:
                inside = [(key, node[key]) for key in keys if key in node]
                deeper += [(item, (*path, key), (node, *around)) for key, item in inside]
            elif type(node) in (list, tuple):
                items = enumerate(node[:_DEEPEST])
                deeper += [(item, (*path, str(index)), around) for index, item in items]
        level = [entry for entry in deeper if type(entry[0]) in (dict, list, tuple, Record)]


def _tensors(node: Data) -> Tensors:
    """Tensors of a state dict, or of a TorchScript module; other values are left out."""
    if type(node) is Record:
        return dict(named_tensors(node))
    if type(node) is not dict:
        return {}
    return {k: v for k, v in node.items() if type(k) is str and type(v) is Tensor}


def _plain(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split(".") if part not in _TRANSPARENT)


def _prefix(tensors: Tensors, known_by: tuple[str, ...]) -> tuple[str, ...] | None:
    """The wrappers before the names of the model; None if it is not there."""
    endings = [tuple(name.split(".")) for name in known_by]
    found = set()
    for name in tensors:
        parts = _plain(name)
        for ending in endings:
            before = parts[: len(parts) - len(ending)]
            if parts[len(before) :] == ending and all(part in _WRAPPERS for part in before):
                found.add(before)
    ranked = sorted(found, key=lambda path: (len(path), [_WRAPPERS.index(part) for part in path]))
    return ranked[0] if ranked else None


def _peeled(tensors: Tensors, prefix: tuple[str, ...]) -> Tensors:
    out: Tensors = {}
    for name, tensor in tensors.items():
        parts = _plain(name)
        if parts[: len(prefix)] != prefix:
            continue
        plain = ".".join(parts[len(prefix) :])
        if plain in _COUNTERS:
            continue
        if plain in out:
            raise CheckpointError(
                f"Without its wrappers the name {show(plain)} stands there twice."
            )
        out[plain] = tensor
    return out


def _names(node: Mapping[Any, Data]) -> str:
    """The first few keys of a dictionary, with the number of tensors below them."""
    told = []
    for key, value in list(node.items())[:_LISTED]:
        name = printable(key)[:80] if type(key) is str else show(key)
        count = 0 if type(value) is Tensor else sum(1 for _ in named_tensors(value))
        told.append(f"{name} ({count} tensor{'s' * (count > 1)})" if count else name)
    more = f" and {len(node) - _LISTED} more" if len(node) > _LISTED else ""
    return ", ".join(told) + more
