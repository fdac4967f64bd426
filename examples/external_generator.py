"""A generator of one's own for `kind = "external"`: coloured blobs, from discs to squares.

    qdgs search examples/external_generator.toml --out runs/blobs

Like many a generator it is biased: its discs are mostly red, its squares mostly blue.
"""

import jax
import jax.numpy as jnp


class Blobs:
    """Latents Float[B, 5]: hue, form, size, and the place in x and y."""

    latent_dim = 5

    def __init__(self, size: int):
        self.line = (jnp.arange(size) + 0.5) / size * 2 - 1
        self.params = {"inks": jnp.array([[0.86, 0.10, 0.12], [0.12, 0.28, 0.88]])}

    def decode(self, params: dict[str, jax.Array], latents: jax.Array) -> jax.Array:
        """Images Float[B, size, size, 3] in [0, 1], of a weighted mix of both inks."""
        hue, form, size, x, y = latents.T[:, :, None, None]
        power = 2 + 8 * jax.nn.sigmoid(3 * form - 1)  # 2 is a disc, 10 almost a square
        across = jnp.abs(self.line - 0.3 * jnp.tanh(x)) + 1e-3
        down = jnp.abs(self.line[:, None] - 0.3 * jnp.tanh(y)) + 1e-3
        distance = (across**power + down**power) ** (1 / power) / (0.5 + 0.15 * jnp.tanh(size))
        cover = jax.nn.sigmoid(25 * (1 - distance))[..., None]
        share = jax.nn.sigmoid(3 * hue)[..., None]
        ink = (1 - share) * params["inks"][0] + share * params["inks"][1]
        return 1 - cover * (1 - ink)

    def sample(self, params: dict[str, jax.Array], key: jax.Array, count: int) -> jax.Array:
        """Latents whose form follows the hue."""
        latents = jax.random.normal(key, (count, self.latent_dim))
        return latents.at[:, 1].set(0.9 * latents[:, 0] + 0.4 * latents[:, 1])


def make_generator(size: int = 64) -> Blobs:
    """The factory that the run file names; its `arguments` arrive here."""
    return Blobs(size)
