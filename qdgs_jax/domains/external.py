"""A generator of the user's own, named by a run file as "module:factory"; see docs/generators.md.

The object that the factory makes is checked once, on two latents, so that what is wrong with it is
said before a search begins.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax import keys
from qdgs_jax.domains.evaluation import Computation
from qdgs_jax.domains.prompted import PromptedDomain, prompted_domain
from qdgs_jax.domains.protocol import ExternalSettings, Generator, LatentStatistics, RunSettings
from qdgs_jax.problem import Prepares, prepared_weights

ATTRIBUTES = ("latent_dim", "decode", "sample", "params")
Result = TypeVar("Result")

SAMPLES = 10_000  # whose mean norm bounds that of latents
SLACK = 1e-3  # of pixels beyond [0, 1]


class Supplied(Generator[object], Protocol):
    """What a factory makes: a generator that carries its weights."""

    @property
    def params(self) -> object:
        """Pytree of arrays; () where there are none."""


@dataclasses.dataclass(frozen=True, eq=False)
class ExternalGenerator:
    """A user's generator, once it is checked.

    Attributes:
        supplied: what the factory made.
        latent_dim: length D of a latent.
        remat: compute the images again in the backward pass.
    """

    supplied: Supplied
    latent_dim: int
    remat: bool = False

    def decode(self, params: object, latents: jax.Array) -> jax.Array:
        """Images Float[B, H, W, 3] in [0, 1] of latents Float[B, D]."""
        decode = self.supplied.decode
        return (jax.checkpoint(decode) if self.remat else decode)(params, latents)

    def prepare_weights(self, params: object) -> object:
        """Weights as they are multiplied, if the user's generator prepares them."""
        return prepared_weights(self.supplied, params)

    def sample(self, params: object, key: jax.Array, count: int) -> jax.Array:
        """Latents Float[count, D] from the generator's prior."""
        return self.supplied.sample(params, key, count)


def load_external(config: RunSettings) -> PromptedDomain[object]:
    """Make the generator that a run names, check it, and put it together with CLIP and prompts.

    Raises:
        CheckpointError: if the CLIP is missing, damaged or of another model.
        ValueError: if the generator cannot be made or used, or a prompt is too long.
    """
    settings = config.domain
    if not isinstance(settings, ExternalSettings):
        raise ValueError(
            f"domain.kind is {settings.kind!r}, but the table has no arguments and no folder: give "
            'those of kind = "external".'
        )
    folder = Path(settings.folder or ".")
    supplied = make_generator(settings.generator, settings.arguments, folder)
    key = keys.stream(keys.root(config.seed), "statistics")
    weights = check_generator(settings.generator, supplied, key)
    computation = Computation.of(config.evaluation)
    generator = ExternalGenerator(supplied, int(supplied.latent_dim), computation.remat)
    mean_norm = _mean_norm(generator, weights, key)
    statistics = LatentStatistics.standard(generator.latent_dim, mean_norm)
    return prompted_domain(config, generator, weights, statistics, computation)


def make_generator(name: str, arguments: Mapping[str, object], folder: Path) -> Supplied:
    """Import "module:factory" and call the factory.

    Args:
        name: the module is looked for where Python looks, then in the folder.
        arguments: keyword arguments of the factory.
        folder: that of the run file.

    Raises:
        ValueError: if there is no such module or factory, or one of them fails.
    """
    module_name, colon, factory_name = name.partition(":")
    if not (colon and module_name and factory_name):
        raise ValueError(
            f'domain.generator is {name!r}: give "module:factory", e.g. "rings:make_generator".'
        )
    with _importable(folder):
        module = _import_module(module_name, folder)
        factory = getattr(module, factory_name, None)
        if not callable(factory):
            raise ValueError(
                f"domain.generator is {name!r}, but {_origin(module)} has no function "
                f"{factory_name!r}: name the one that makes the generator."
            )
        shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        return _guarded(f"{name}({shown})", lambda: factory(**arguments))


def check_generator(name: str, supplied: Supplied, key: jax.Array) -> object:
    """Check a generator on two of its own latents.

    Returns:
        Its weights, as arrays on the device.

    Raises:
        ValueError: if an attribute is missing or does not do what docs/generators.md says.
    """
    dim = _latent_dim(name, supplied)
    weights = _guarded(f"{name}: params", lambda: jax.tree.map(jnp.asarray, supplied.params))

    key = keys.stream(key, "check")
    latents = _guarded(
        f"{name}: sample(params, key, 2)",
        lambda: jax.jit(supplied.sample, static_argnums=2)(weights, key, 2),
    )
    _check_array(f"{name}: sample(params, key, 2)", latents, (2, dim))
    images = _guarded(
        f"{name}: decode(params, latents)", lambda: jax.jit(supplied.decode)(weights, latents)
    )
    what = f"{name}: decode of latents of shape {latents.shape}"
    _check_array(what, images, (2, None, None, 3))
    low, high = float(images.min()), float(images.max())
    if not (low >= -SLACK and high <= 1 + SLACK):
        raise ValueError(
            f"{what} gives pixels from {low:.4g} to {high:.4g}: give values in [0, 1]; of pixels "
            "in [-1, 1] return (x + 1) / 2."
        )
    if isinstance(supplied, Prepares):
        prepared = f"{name}: decode(prepare_weights(params), latents)"
        again = _guarded(
            prepared,
            lambda: jax.jit(lambda w, z: supplied.decode(supplied.prepare_weights(w), z))(
                weights, latents
            ),
        )
        _check_array(prepared, again, images.shape)
        if not np.allclose(again, images, atol=SLACK):
            raise ValueError(f"{prepared} gives other pixels than decode(params, latents).")
    return weights


def generator_shapes(name: str, supplied: Supplied) -> object:
    """Check a generator by what shapes tell; nothing is computed.

    Returns:
        Shapes of its weights.

    Raises:
        ValueError: if an attribute is missing, or the images have another shape than they should.
    """
    dim = _latent_dim(name, supplied)
    weights: object = jax.eval_shape(lambda params: params, supplied.params)
    latents = jax.ShapeDtypeStruct((2, dim), jnp.float32)  # type: ignore[no-untyped-call]
    what = f"{name}: decode of latents of shape {latents.shape}"
    images = _guarded(what, lambda: jax.eval_shape(supplied.decode, weights, latents))
    if not isinstance(images, jax.ShapeDtypeStruct):
        raise ValueError(f"{what} gives a {type(images).__name__}: give an array [2, H, W, 3].")
    _check_shape(what, images, (2, None, None, 3))
    return weights


def _latent_dim(name: str, supplied: Supplied) -> int:
    """The length of a generator's latents, once its attributes are checked."""
    missing = [attribute for attribute in ATTRIBUTES if not hasattr(supplied, attribute)]
    if missing:
        raise ValueError(
            f"{name} made a {type(supplied).__name__} without {' and '.join(missing)}: a generator "
            f"has {', '.join(ATTRIBUTES)}."
        )
    dim = supplied.latent_dim
    if isinstance(dim, bool) or not isinstance(dim, int | np.integer) or dim < 1:
        raise ValueError(
            f"{name}: latent_dim is {dim!r}: give the length of a latent, an int of at least 1."
        )
    return int(dim)


def _check_array(what: str, array: object, shape: tuple[int | None, ...]) -> None:
    """Check that something is an array of finite floats of a shape; None is any length from 1."""
    if not isinstance(array, jax.Array):
        raise ValueError(f"{what} gives a {type(array).__name__}: give an array {_words(shape)}.")
    _check_shape(what, array, shape)
    if not bool(jnp.isfinite(array).all()):
        raise ValueError(f"{what} gives values that are not finite.")


def _words(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("HW"[i - 1] if n is None else str(n) for i, n in enumerate(shape)) + "]"


def _check_shape(
    what: str, array: jax.Array | jax.ShapeDtypeStruct, shape: tuple[int | None, ...]
) -> None:
    """Check that an array is of floats and of a shape; None is any length from 1."""
    fits = len(array.shape) == len(shape) and all(
        got == want if want is not None else got > 0
        for got, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{what} gives shape {list(array.shape)}: give {_words(shape)}.")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{what} gives {array.dtype}: give float32, of pixels x / 255.")


def _mean_norm(generator: ExternalGenerator, weights: object, key: jax.Array) -> jax.Array:
    """Mean length of many latents from the prior, Float[]."""

    @jax.jit
    def mean_norm(weights: object) -> jax.Array:
        latents = generator.sample(weights, keys.stream(key, "norms"), SAMPLES)
        return jnp.linalg.norm(latents, axis=-1).mean()

    return mean_norm(weights)


def _import_module(name: str, folder: Path) -> ModuleType:
    top = name.partition(".")[0]
    found = PathFinder.find_spec(top)
    known = sys.modules.get(top)
    if found is None and known is None and importlib.util.find_spec(top) is None:
        raise ValueError(
            f"domain.generator names the module {name!r}, which is neither in {folder.resolve()} "
            "nor where Python looks: put it into that folder, or install it."
        )
    origin = getattr(known, "__file__", None)
    if found is not None and origin and found.origin and Path(found.origin) != Path(origin):
        raise ValueError(
            f"domain.generator names the module {name!r} of {found.origin}, but {origin} is in use "
            "under this name already: rename one of them."
        )
    return _guarded(f"import {name}", lambda: importlib.import_module(name))


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let Python look for modules in a folder, too, after all others."""
    entry = str(folder.resolve())
    sys.path.append(entry)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(entry)


def _guarded(what: str, call: Callable[[], Result]) -> Result:
    """Call the user's code; whatever it raises becomes one sentence that says where."""
    try:
        return call()
    except Exception as error:
        text = str(error).strip().split("\n")[0]
        raise ValueError(f"{what} failed: {type(error).__name__}: {text}") from error


def _origin(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or module.__name__
