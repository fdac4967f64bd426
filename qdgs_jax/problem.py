"""What a search optimises: latents in, objective and measures out.

A `Problem` keeps its weights apart from its code, so that a compiled search takes them as arguments
instead of capturing them as constants, and may carry a small state through the search (the faces
domain remembers embeddings it has seen). Objectives are maximised.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

Params = Any  # pytree of arrays: the weights of a problem's networks, or ()
ProblemState = Any  # pytree of arrays carried through a search, or ()

_NEEDS_VALUES = (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError)


class Evaluation(NamedTuple):
    """Scores of a batch of latents.

    Attributes:
        fitnesses: Float[B], the objective, maximised.
        descriptors: Float[B, M], the measures.
        extra: further arrays with leading axis B, for `Problem.observe`, for emitters (QDax's
            "transitions") and for archives that keep extra scores.
    """

    fitnesses: jax.Array
    descriptors: jax.Array
    extra: Mapping[str, jax.Array] = {}


@runtime_checkable
class Problem(Protocol):
    """A batch of latents is scored by pure functions of (params, state, latents, key)."""

    @property
    def latent_dim(self) -> int:
        """Length D of a latent."""

    @property
    def num_measures(self) -> int:
        """Number M of measures."""

    def init_state(self) -> ProblemState:
        """State at the start of a search."""

    def evaluate(
        self, params: Params, state: ProblemState, latents: jax.Array, key: jax.Array
    ) -> Evaluation:
        """Score latents Float[B, D]."""

    def evaluate_with_jacobian(
        self, params: Params, state: ProblemState, latents: jax.Array, key: jax.Array
    ) -> tuple[Evaluation, jax.Array]:
        """Score latents Float[B, D] and differentiate: also the Jacobian Float[B, 1 + M, D].

        Row 0 is the gradient of the objective, row 1 + j that of measure j.
        """

    def observe(self, state: ProblemState, evaluation: Evaluation, key: jax.Array) -> ProblemState:
        """State after an evaluation."""


@runtime_checkable
class Prepares(Protocol):
    """A problem or generator that can spare its calls what depends on the weights alone."""

    def prepare_weights(self, params: Params) -> Params:
        """Weights that its functions take instead, for equal results up to rounding.

        `Search.run` calls it once for the `chunk` steps of a program, on the device; single steps
        take the weights as they are.
        """


def prepared_weights(user: object, params: Params) -> Params:
    """Weights as the problem or generator that uses them prepares them, or as they are."""
    return user.prepare_weights(params) if isinstance(user, Prepares) else params


Scores = tuple[jax.Array, jax.Array]


def value_and_jacobian(
    function: Callable[[jax.Array], Scores], latents: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Score latents and differentiate every output.

    Args:
        function: latents Float[B, D] to objectives Float[B] and measures Float[B, M]; a row of the
            output may depend on the same row of the input only.
        latents: Float[B, D].

    Returns:
        Objectives Float[B], measures Float[B, M] and the Jacobian Float[B, 1 + M, D].
    """

    def pair(x: jax.Array) -> Scores:
        objectives, measures = function(x)  # maybe a list, whose cotangents would be one, too
        return objectives, measures

    (objectives, measures), pull_back = jax.vjp(pair, latents)
    return objectives, measures, pull_back_outputs(pull_back, objectives, measures)


def pull_back_outputs(
    pull_back: Callable[[Scores], tuple[jax.Array]],
    objectives: jax.Array,
    measures: jax.Array,
    one_by_one: bool = False,
) -> jax.Array:
    """Pull the cotangents of all 1 + M outputs back, from what `jax.vjp` returned.

    Args:
        pull_back: cotangents of (objectives, measures) to (cotangents of latents,).
        objectives: Float[B].
        measures: Float[B, M].
        one_by_one: one output after the other, in a loop that needs the memory of one, instead of
            all together.

    Returns:
        The Jacobian Float[B, 1 + M, D].
    """
    # Rows are independent, so that the cotangent 1 for all rows gives each row its own gradient.
    outputs = jnp.eye(1 + measures.shape[1])

    def spread(ones: jax.Array, scores: jax.Array) -> jax.Array:
        return jnp.broadcast_to(ones, (len(outputs), *scores.shape)).astype(scores.dtype)

    cotangents = spread(outputs[:, :1], objectives), spread(outputs[:, None, 1:], measures)
    if one_by_one:
        (jacobian,) = jax.lax.map(pull_back, cotangents)
    else:
        (jacobian,) = jax.vmap(pull_back)(cotangents)
    return jnp.swapaxes(jacobian, 0, 1)


@dataclasses.dataclass(frozen=True)
class FunctionProblem:
    """A function as a `Problem` without a state.

    Attributes:
        function: latents Float[B, D] -> (objectives Float[B], measures Float[B, M]), each output
            row from its own input row; with `has_params`, (params, latents) -> the same.
        latent_dim: D.
        num_measures: M.
        has_params: whether the function takes weights as its first argument. They then are
            arguments of the compiled search; arrays that a function captures become constants of
            the program, which hold their memory twice.
        jacobian: the same arguments -> (objectives, measures, Jacobian Float[B, 1 + M, D]); derived
            from `function` if None.
    """

    function: Callable[..., Scores]
    latent_dim: int
    num_measures: int
    has_params: bool = False
    jacobian: Callable[..., tuple[jax.Array, jax.Array, jax.Array]] | None = None

    def __post_init__(self) -> None:
        for name, function in (("function", self.function), ("jacobian", self.jacobian)):
            if function is not None or name == "function":
                _check_signature(name, function, ("params", "latents")[not self.has_params :])
        if self.latent_dim < 1 or self.num_measures < 1:
            raise ValueError(
                f"latent_dim is {self.latent_dim} and num_measures {self.num_measures}: both are "
                "at least 1."
            )

    def init_state(self) -> ProblemState:
        """No state."""
        return ()

    def evaluate(
        self, params: Params, state: ProblemState, latents: jax.Array, key: jax.Array
    ) -> Evaluation:
        """Score latents Float[B, D]."""
        scores = _unpack(self._call(self.function, params)(latents), "objectives", "measures")
        return self._evaluation(latents, *scores)

    def evaluate_with_jacobian(
        self, params: Params, state: ProblemState, latents: jax.Array, key: jax.Array
    ) -> tuple[Evaluation, jax.Array]:
        """Score latents Float[B, D] and differentiate: also Float[B, 1 + M, D]."""
        if self.jacobian is not None:
            *scores, jacobian = _unpack(
                self._call(self.jacobian, params)(latents), "objectives", "measures", "Jacobian"
            )
        else:
            # For its checks; unused, it costs nothing.
            scored = self.evaluate(params, state, latents, key)
            for name, column in (
                ("objectives", scored.fitnesses),
                ("measures", scored.descriptors),
            ):
                if not jnp.issubdtype(column.dtype, jnp.floating):
                    raise ValueError(
                        f"the function returned {name} of {column.dtype}, which have no "
                        "gradient: return float32, or take an emitter that needs no gradients."
                    )
            *scores, jacobian = value_and_jacobian(self._call(self.function, params), latents)
        wanted = (latents.shape[0], 1 + self.num_measures, self.latent_dim)
        if jacobian.shape != wanted:
            raise ValueError(
                f"the Jacobian has shape {jacobian.shape}, expected {wanted}: one row for the "
                "objective and one per measure, for each latent."
            )
        return self._evaluation(latents, *scores), jacobian

    def observe(self, state: ProblemState, evaluation: Evaluation, key: jax.Array) -> ProblemState:
        """No state."""
        return state

    def _call(self, function: Callable[..., Any], params: Params) -> Callable[[jax.Array], Any]:
        def call(latents: jax.Array) -> Any:
            try:
                return function(params, latents) if self.has_params else function(latents)
            except (
                jax.errors.TracerArrayConversionError,
                jax.errors.ConcretizationTypeError,
            ) as error:
                raise ValueError(
                    "the function needs the values of its latents while it is compiled: compute "
                    "with jax.numpy rather than NumPy or float(), and choose with jnp.where rather "
                    f"than `if` ({str(error).splitlines()[0]})"
                ) from error

        return call

    def _evaluation(
        self, latents: jax.Array, objectives: jax.Array, measures: jax.Array
    ) -> Evaluation:
        batch = latents.shape[0]
        shapes = jnp.shape(objectives), jnp.shape(measures)
        if shapes != ((batch,), (batch, self.num_measures)):
            raise ValueError(
                f"the function returned shapes {shapes[0]} and {shapes[1]} for {batch} latents, "
                f"expected {(batch,)} objectives and {(batch, self.num_measures)} measures."
            )
        return Evaluation(objectives, measures)


def _unpack(results: Any, *names: str) -> tuple[jax.Array, ...]:
    """What a user's function returned, once it is as many arrays as there are names."""
    wanted = f"return ({', '.join(names)})"
    if not isinstance(results, tuple | list) or len(results) != len(names):
        found = f"{len(results)} values" if isinstance(results, tuple | list) else "no tuple"
        raise ValueError(f"the function returned {found}: {wanted}.")
    arrays = []
    for name, result in zip(names, results, strict=True):
        if isinstance(result, tuple | list):
            raise ValueError(
                f"the function returned its {name} as a {type(result).__name__} of {len(result)}: "
                f"{wanted}, each one array; jnp.stack([...], axis=-1) makes one of measures."
            )
        try:
            arrays.append(jnp.asarray(result))
        except (TypeError, ValueError):
            raise ValueError(
                f"the function returned its {name} as {result!r:.60}: {wanted}, each one array."
            ) from None
        if jnp.iscomplexobj(arrays[-1]):
            raise ValueError(f"the function returned complex {name}: give real numbers.")
    return tuple(arrays)


def _check_signature(name: str, function: Any, arguments: tuple[str, ...]) -> None:
    """Refuse what cannot be called with as many arguments as there are names."""
    if not callable(function):
        raise ValueError(f"{name} is {function!r:.60}: give a function of {', '.join(arguments)}.")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of C code, which does not tell
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        raise ValueError(
            f"{name} takes {signature}: it is called with ({', '.join(arguments)}); "
            "has_params=True is for functions that take weights first."
        ) from None
