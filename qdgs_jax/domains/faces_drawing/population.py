"""Whom to draw: populations of named bias, identities, and pictures of the same person.

The population "ffhq" leans as FFHQ does in the paper's count: 73.1 % light, 17.1 % mixed and 9.8 %
dark skin, 64.9 % young and 35.1 % old, independently of each other and of all else; masculine and
feminine cues are equally frequent, and long hair goes with feminine ones as it does in photos.
"balanced" is uniform over all groups, independently. Tones and ages keep clear of the edges between
groups, where no label would be right.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from qdgs_jax.domains.faces_drawing.attributes import (
    GEOMETRY,
    FaceAttributes,
    FaceLabels,
    Identity,
    label_faces,
)


@dataclasses.dataclass(frozen=True)
class Population:
    """Shares of groups, which are drawn independently but for the hair.

    Attributes:
        skin: of light, mixed and dark.
        age: of young and old.
        gender: of masculine, androgynous and feminine.
        long_hair: share of long hair among masculine, androgynous and feminine faces.
        glasses: share of faces with glasses.
    """

    skin: tuple[float, float, float]
    age: tuple[float, float]
    gender: tuple[float, float, float]
    long_hair: tuple[float, float, float]
    glasses: float


POPULATIONS = {
    "ffhq": Population(
        skin=(0.731, 0.171, 0.098),
        age=(0.649, 0.351),
        gender=(0.45, 0.10, 0.45),
        long_hair=(0.12, 0.50, 0.80),
        glasses=0.2,
    ),
    "balanced": Population(
        skin=(1 / 3, 1 / 3, 1 / 3),
        age=(0.5, 0.5),
        gender=(1 / 3, 1 / 3, 1 / 3),
        long_hair=(0.5, 0.5, 0.5),
        glasses=0.5,
    ),
}
_WHO = 8 + len(GEOMETRY)  # numbers that make a person
PICTURE_NUMBERS = 31  # and that make a picture of one
NUMBERS = _WHO + PICTURE_NUMBERS
_SKIN_RANGES = ((1.0, 3.9), (4.8, 6.1), (7.0, 10.0))
_AGE_RANGES = ((18.0, 34.0), (46.0, 78.0))
_GENDER_RANGES = ((-1.0, -0.55), (-0.15, 0.15), (0.55, 1.0))


def _within(
    which: jax.Array,
    where: jax.Array,
    shares: tuple[float, ...],
    ranges: tuple[tuple[float, float], ...],
) -> jax.Array:
    """Values of groups that have the given shares, uniform in each group's range, Float[N].

    Args:
        which: Float[N] in [0, 1], picks the group.
        where: Float[N] in [0, 1], picks the place in its range.
        shares: of the groups.
        ranges: of the groups.
    """
    group = jnp.searchsorted(jnp.cumsum(jnp.asarray(shares))[:-1], which, side="right")
    low, high = jnp.asarray(ranges).T
    return low[group] + where * (high - low)[group]


@functools.partial(jax.jit, static_argnames="population")
def _picture(numbers: jax.Array, population: Population, who: Identity) -> FaceAttributes:
    """Pictures of people: hair, expression, light, pose of numbers Float[N, PICTURE_NUMBERS]."""
    columns = iter(numbers.T)

    def uniform(low: float = 0.0, high: float = 1.0, width: int | None = None) -> jax.Array:
        taken = [low + (high - low) * next(columns) for _ in range(width or 1)]
        return taken[0] if width is None else jnp.stack(taken, axis=-1)

    gender = jnp.clip(jnp.round(1.5 * who.gender + 1.0), 0, 2).astype(jnp.int32)
    long = uniform() < jnp.asarray(population.long_hair)[gender]
    length = uniform()
    feminine = jnp.clip(0.5 + 0.5 * who.gender, 0.0, 1.0)
    beard = jnp.where(uniform() < 0.65, uniform(0.15, 1.0), 0.0)
    grey = uniform(0.25, 0.95)[:, None]
    tint = uniform(-0.16, 0.16, 3)
    top = jnp.clip(grey + tint, 0.0, 1.0)
    bottom = jnp.clip(top + uniform(-0.22, 0.12)[:, None], 0.0, 1.0)
    clothes = uniform(0.1, 0.85)[:, None] + uniform(-0.2, 0.2, 3)
    return FaceAttributes(
        identity=who,
        hair_length=jnp.where(long, 0.62 + 0.38 * length, 0.02 + 0.34 * length),
        hair_volume=uniform(),
        hair_curl=uniform() ** 2,
        fringe=uniform() ** 1.5,
        parting=uniform(-1.0, 1.0),
        beard=jnp.where(who.gender < 0.0, beard, 0.0),
        make_up=uniform() * feminine,
        glasses=(uniform() < population.glasses).astype(jnp.float32),
        frame_shape=uniform(),
        smile=uniform(0.1),
        gaze=uniform(-0.6, 0.6),
        light=jnp.stack([uniform(-1.0, 1.0), uniform()], axis=-1),
        light_strength=uniform(),
        light_warmth=uniform(-1.0, 1.0),
        background=jnp.stack([top, bottom], axis=1),
        clothes=jnp.clip(clothes, 0.0, 1.0),
        shift=uniform(-0.008, 0.008, 2),
        rotation=uniform(-0.04, 0.04),
        scale=uniform(0.97, 1.03),
        yaw=uniform(-0.28, 0.28),
    )


@functools.partial(jax.jit, static_argnames="population")
def _people(numbers: jax.Array, population: Population) -> Identity:
    """People, from numbers Float[N, _WHO] in [0, 1]."""
    columns = numbers.T
    skin = _within(columns[0], columns[1], population.skin, _SKIN_RANGES)
    age = _within(columns[2], columns[3], population.age, _AGE_RANGES)
    gender = _within(columns[4], columns[5], population.gender, _GENDER_RANGES)
    spread = jax.scipy.special.ndtri(jnp.clip(numbers[:, 8:], 0.01, 0.99))
    geometry = jnp.clip(0.5 * spread, -1.0, 1.0)
    # Fair hair and eyes become rare as skin gets darker; dark ones go with every skin.
    fair = jnp.clip((7.0 - skin) / 3.5, 0.15, 1.0)
    hair = columns[6] ** 1.2 * fair
    eyes = columns[7] * fair
    return Identity(geometry, skin, age, gender, hair, eyes)


def find_population(name: str) -> Population:
    """A population by its name.

    Raises:
        ValueError: no population has this name.
    """
    if name not in POPULATIONS:
        raise ValueError(f"population is {name!r}: give one of {', '.join(POPULATIONS)}.")
    return POPULATIONS[name]


def sample_identities(key: jax.Array, n: int, population: str = "balanced") -> Identity:
    """Draw `n` people of a population."""
    return _people(jax.random.uniform(key, (n, _WHO)), find_population(population))


def vary(
    key: jax.Array, identity: Identity, n: int, population: str = "balanced"
) -> FaceAttributes:
    """Draw `n` pictures of each person: attributes of len(identity) * n faces, person by person."""
    repeated = jax.tree.map(lambda values: jnp.repeat(values, n, axis=0), identity)
    numbers = jax.random.uniform(key, (repeated.skin.shape[0], PICTURE_NUMBERS))
    return _picture(numbers, find_population(population), repeated)


def faces_from_numbers(numbers: jax.Array, population: str = "ffhq") -> FaceAttributes:
    """Faces as a fixed function of numbers.

    Args:
        numbers: Float[N, NUMBERS]; uniform in [0, 1], they give faces of the population.
        population: a name in `POPULATIONS`.

    Raises:
        ValueError: no population has this name, or the numbers have another shape.
    """
    if numbers.ndim != 2 or numbers.shape[1] != NUMBERS:
        raise ValueError(f"numbers has shape {numbers.shape}: pass [count, {NUMBERS}].")
    group = find_population(population)
    return _picture(numbers[:, _WHO:], group, _people(numbers[:, :_WHO], group))


def sample_population(
    key: jax.Array, n: int, population: str = "ffhq"
) -> tuple[FaceAttributes, FaceLabels]:
    """Draw `n` faces, each of another person.

    Args:
        key: a key of its own.
        n: number of faces.
        population: a name in `POPULATIONS`.

    Returns:
        Attributes and the groups that they belong to.

    Raises:
        ValueError: no population has this name.
    """
    # One table of numbers, a column each: a key for each would take seconds to compile.
    attributes = faces_from_numbers(jax.random.uniform(key, (n, NUMBERS)), population)
    return attributes, label_faces(attributes)
