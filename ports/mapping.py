"""Rule tables: which tensor of a checkpoint becomes which parameter of a model.

A table is complete both ways: every tensor is mapped or listed as ignored, and every parameter is
filled, with the right shape and a floating-point type. Otherwise nothing is converted and the error
names the first few. All names and shapes are compared before any tensor is read, and a parameter is
made only when its turn comes to be written.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import nnx

from qdgs_jax.ports.errors import CheckpointError, show
from qdgs_jax.ports.params import Params, Pending, flatten, unflatten


@dataclasses.dataclass(frozen=True)
class Regroup:
    """Reshape a tensor to `split`, permute by `axes`, and give it the parameter's shape.

    Attributes:
        shape: the shape that the tensor must have.
        split: shape with as many elements.
        axes: permutation of the axes of `split`.
    """

    shape: tuple[int, ...]
    split: tuple[int, ...]
    axes: tuple[int, ...]


# Regular expression of the tensor's name, parameter, permutation of axes. A parameter that is
# joined from n tensors along its last axis is named for each of them, with "[k/n]" at the end.
Transform = tuple[int, ...] | Regroup | None
Rule = tuple[str, str, Transform]
DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
_NAMED = 4  # how many names an error lists
Model = TypeVar("Model", bound=nnx.Module)


class TensorLike(Protocol):
    """What a rule needs of a tensor; the readers' tensors are still in their file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes."""

    @property
    def dtype(self) -> np.dtype:
        """Element type."""

    def numpy(self) -> np.ndarray:
        """Read the elements."""


class _OneKey:
    """Stands in for `nnx.Rngs` and gives every parameter the same key; no number is drawn."""

    def params(self) -> jax.Array:
        return jax.random.key(0)


# For models of which only the shapes matter. Under `nnx.eval_shape` each key of a real nnx.Rngs
# takes time in proportion to the parameters before it: half a minute for a hundred layers.
SHAPES_ONLY: Any = _OneKey()


@dataclasses.dataclass(frozen=True)
class Mapped:
    """A checkpoint as it will be converted.

    Attributes:
        params: nested dictionaries of `Pending`, as the model names them.
        ignored: names of tensors that the table lists as not needed.
    """

    params: Params
    ignored: tuple[str, ...]


def parameter_shapes(build: Callable[[], nnx.Module]) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter of a model, by its path with dots, without allocating any.

    Args:
        build: makes the model, such as `lambda: VAE(config, rngs=SHAPES_ONLY)`.
    """
    return _shapes(nnx.state(nnx.eval_shape(build)))


def _shapes(state: nnx.State) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(state))[0]
    return {".".join(str(key.key) for key in path): tuple(leaf.shape) for path, leaf in leaves}


def fill_model(build: Callable[[], Model], params: Params) -> Model:
    """Make a model with these parameters instead of random ones.

    Args:
        build: as for `parameter_shapes`; it is only traced.
        params: nested dictionaries of arrays, as `load_model` gives them.

    Raises:
        CheckpointError: if a parameter is missing, unknown or of the wrong shape.
    """
    graph, state = nnx.split(nnx.eval_shape(build))
    leaves, shapes = dict(flatten(params)), _shapes(state)
    _complain(
        [name for name in shapes if name not in leaves],
        [show(name) for name in leaves if name not in shapes],
        [
            f"{name} is {leaf.shape}, should be {shapes[name]}"
            for name, leaf in leaves.items()
            if leaf.shape != shapes.get(name, leaf.shape)
        ],
    )
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, params))
    return nnx.merge(graph, state)


def plan_rules(
    tensors: Mapping[str, Any],
    rules: Sequence[Rule],
    ignored: Sequence[str],
    params: Mapping[str, tuple[int, ...]],
    dtype: str = "float32",
) -> Mapped:
    """Plan the conversion of a checkpoint's tensors to a model's parameters.

    Args:
        tensors: `TensorLike` by name.
        rules: the table; of several rules that match a name, the first counts.
        ignored: regular expressions of tensors that are not needed.
        params: shape of every parameter, by its path with dots (`parameter_shapes`).
        dtype: element type of the parameters: "float32", "bfloat16" or "float16".

    Returns:
        `Pending` parameters. Making one raises CheckpointError if a tensor's bytes are damaged, or
        a number is not finite in the element type.

    Raises:
        CheckpointError: if a tensor is unknown, a parameter is left over, or a shape does not fit.
    """
    target = float_dtype(dtype)
    plan, skipped, unknown = _plan(tensors, rules, ignored)
    missing = [name for name in params if not _complete(plan.get(name, []))]
    unknown += [f"{show(ps[0].source)} ({name})" for name, ps in plan.items() if name not in params]
    _complain(missing, unknown, _misfits(tensors, plan, params))
    leaves = {
        name: Pending(
            params[name], target, functools.partial(_join, tensors, pieces, params[name], target)
        )
        for name, pieces in plan.items()
    }
    return Mapped(unflatten(leaves), tuple(skipped))


def _join(
    tensors: Mapping[str, TensorLike],
    pieces: Sequence[_Piece],
    shape: tuple[int, ...],
    dtype: np.dtype,
) -> np.ndarray:
    """Make a parameter from its pieces along the last axis."""
    leaf = np.empty(shape, dtype)
    for piece in pieces:
        width = shape[-1] // piece.parts if shape else 0
        place = leaf[..., piece.part * width : (piece.part + 1) * width] if shape else leaf
        with np.errstate(over="ignore"):  # told below
            place[...] = piece.arrange(tensors[piece.source].numpy()).reshape(place.shape)
        if not np.isfinite(place).all():
            raise CheckpointError(f"{piece.source} holds numbers that are not finite in {dtype}.")
    return leaf


def float_dtype(name: str) -> np.dtype:
    """Look up the element type of this name.

    Raises:
        CheckpointError: if parameters cannot be of it.
    """
    if name not in DTYPES:
        raise CheckpointError(f"dtype is {name!r}: give one of {', '.join(DTYPES)}.")
    dtype: np.dtype = DTYPES[name]
    return dtype


@dataclasses.dataclass(frozen=True)
class _Piece:
    """One tensor's share of a parameter: part `part` of `parts` along the last axis."""

    source: str
    transform: Transform
    part: int
    parts: int

    def source_shape(self, parameter: tuple[int, ...]) -> tuple[int, ...] | None:
        """Shape that the tensor must have; None if none would do."""
        if self.parts > 1 and (not parameter or parameter[-1] % self.parts):
            return None
        wanted = parameter
        if self.parts > 1:
            wanted = (*parameter[:-1], parameter[-1] // self.parts)
        if isinstance(self.transform, Regroup):
            fits = math.prod(self.transform.split) == math.prod(wanted)
            return self.transform.shape if fits else None
        if self.transform is None:
            return wanted
        if sorted(self.transform) != list(range(len(wanted))):
            return None
        return tuple(wanted[self.transform.index(axis)] for axis in range(len(wanted)))

    def arrange(self, array: np.ndarray) -> np.ndarray:
        """Bring the axes of the tensor into the parameter's order."""
        if isinstance(self.transform, Regroup):
            return array.reshape(self.transform.split).transpose(self.transform.axes)
        return array if self.transform is None else array.transpose(self.transform)


def _complete(pieces: Sequence[_Piece]) -> bool:
    return bool(pieces) and len(pieces) == pieces[0].parts


def _plan(
    tensors: Mapping[str, TensorLike], rules: Sequence[Rule], ignored: Sequence[str]
) -> tuple[dict[str, list[_Piece]], list[str], list[str]]:
    """Find what becomes of each tensor: pieces of each parameter, ignored and unknown names."""
    table = [(re.compile(pattern), target, transform) for pattern, target, transform in rules]
    needless = [re.compile(pattern) for pattern in ignored]
    plan: dict[str, list[_Piece]] = {}
    skipped: list[str] = []
    unknown: list[str] = []
    for name in tensors:
        for pattern, target, transform in table:
            if match := pattern.fullmatch(name):
                parameter, _, part = match.expand(target).removesuffix("]").partition("[")
                index, _, parts = (part or "0/1").partition("/")
                pieces = plan.setdefault(parameter, [])
                piece = _Piece(name, transform, int(index), int(parts))
                for other in pieces:
                    if (other.part, other.parts) == (piece.part, piece.parts):
                        raise CheckpointError(
                            f"{show(name)} and {show(other.source)} both stand for {parameter}."
                        )
                pieces.append(piece)
                break
        else:
            if any(pattern.fullmatch(name) for pattern in needless):
                skipped.append(name)
            else:
                unknown.append(show(name))
    return plan, skipped, unknown


def _misfits(
    tensors: Mapping[str, TensorLike],
    plan: Mapping[str, Sequence[_Piece]],
    params: Mapping[str, tuple[int, ...]],
) -> list[str]:
    """Tensors whose shape or type cannot become the parameter's."""
    out = []
    for name, pieces in plan.items():
        for piece in pieces if name in params else ():
            tensor, wanted = tensors[piece.source], piece.source_shape(params[name])
            if tensor.dtype.kind != "f" and tensor.dtype not in DTYPES.values():
                out.append(f"{piece.source} holds {tensor.dtype}, not floating-point numbers")
            elif tuple(tensor.shape) != wanted:
                should = f"should be {wanted}" if wanted else f"for {name} {params[name]}"
                out.append(f"{piece.source} is {tuple(tensor.shape)}, {should}")
    return out


def _complain(missing: list[str], unknown: list[str], misfits: list[str]) -> None:
    parts = []
    for what, names in (
        ("no tensor gives", missing),
        ("nothing in the model takes", unknown),
        ("wrong shape or type:", misfits),
    ):
        if names:
            listed = ", ".join(name[:120] for name in names[:_NAMED])
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            parts.append(f"{what} {listed}{more}")
    if parts:
        raise CheckpointError(f"The checkpoint does not fit the model: {'; '.join(parts)}.")
