"""A network of one layer, pairs that are imported already, and figures of a few seeds."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qdgs_jax.datasets.face_pairs import write_pairs
from qdgs_jax.models.iresnet import IResNetConfig
from qdgs_jax.ports.faces.pairs import FacePairs, PairIndex
from qdgs_jax.train.faces.fairness import verify_groups


class Layer(nnx.Module):
    """Faces of 16 x 16 to 8 numbers."""

    def __init__(self, rngs):
        self.cfg = IResNetConfig(18, input_size=16, embed_dim=8)
        self.dense = nnx.Linear(16 * 16 * 3, 8, rngs=rngs)

    def __call__(self, images):
        found = self.dense(images.reshape(len(images), -1))
        norms = jnp.linalg.norm(found, axis=1, keepdims=True)
        return found / norms, norms


network = Layer(nnx.Rngs(0))
rng = np.random.default_rng(0)
same, groups = np.arange(40) % 2 == 0, np.repeat(["dark", "light"], 20)
pictures = rng.integers(0, 256, (80, 16, 16, 3), np.uint8)
write_pairs("data/lfw", FacePairs(pictures, PairIndex.in_rows(same, groups)))
seeds_of_none, seeds_of_qd = (
    [verify_groups(rng.random(40) + (0.5 + 0.2 * arm) * ~same, same, groups) for _ in range(3)]
    for arm in range(2)
)
embeddings = jax.random.normal(jax.random.key(0), (4, 512)) / 22.6
norms, labels = jnp.full((4, 1), 20.0), jnp.arange(4)
