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
_COLUMNS = 31  # random numbers of a picture
_SKIN_RANGES = ((1.0, 3.9), (4.8, 6.1), (7.0, 10.0))
_AGE_RANGES = ((18.0, 34.0), (46.0, 78.0))
_GENDER_RANGES = ((-1.0, -0.55), (-0.15, 0.15), (0.55, 1.0))


def _within(key: jax.Array, group: jax.Array, ranges: tuple[tuple[float, float], ...]) -> jax.Array:
    """Uniform in the range of each group, Int[N] to Float[N]."""
    low, high = jnp.asarray(ranges).T
    share = jax.random.uniform(key, group.shape)
    return low[group] + share * (high - low)[group]


def _groups(key: jax.Array, count: int, shares: tuple[float, ...]) -> jax.Array:
    """Groups Int[count], drawn with the given shares."""
    return jax.random.choice(key, len(shares), (count,), p=jnp.asarray(shares))


@functools.partial(jax.jit, static_argnames="population")
def _style(key: jax.Array, population: Population, who: Identity) -> FaceAttributes:
    """A picture of each of the people: hair, expression, light, surroundings and pose."""
    # One table of numbers, a column each: a key for each would take seconds to compile.
    columns = iter(jax.random.uniform(key, (_COLUMNS, who.skin.shape[0])))

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


@functools.partial(jax.jit, static_argnames=("count", "population"))
def _identities(key: jax.Array, count: int, population: Population) -> Identity:
    skin_key, tone_key, age_key, year_key, gender_key, cue_key, body_key, hair_key, eye_key = (
        jax.random.split(key, 9)
    )
    skin = _within(tone_key, _groups(skin_key, count, population.skin), _SKIN_RANGES)
    age = _within(year_key, _groups(age_key, count, population.age), _AGE_RANGES)
    gender = _within(cue_key, _groups(gender_key, count, population.gender), _GENDER_RANGES)
    geometry = jnp.clip(0.5 * jax.random.normal(body_key, (count, len(GEOMETRY))), -1.0, 1.0)
    # Fair hair and eyes become rare as skin gets darker; dark ones go with every skin.
    fair = jnp.clip((7.0 - skin) / 3.5, 0.15, 1.0)
    hair = jax.random.uniform(hair_key, (count,)) ** 1.2 * fair
    eyes = jax.random.uniform(eye_key, (count,)) * fair
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
    return _identities(key, n, find_population(population))


def vary(
    key: jax.Array, identity: Identity, n: int, population: str = "balanced"
) -> FaceAttributes:
    """Draw `n` pictures of each person: attributes of len(identity) * n faces, person by person."""
    repeated = jax.tree.map(lambda values: jnp.repeat(values, n, axis=0), identity)
    return _style(key, find_population(population), repeated)


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
    who_key, style_key = jax.random.split(key)
    identity = sample_identities(who_key, n, population)
    attributes = vary(style_key, identity, 1, population)
    return attributes, label_faces(attributes)
