"""Train the embedded shapes VAE: red triangles and blue squares at bias 0.9.

    python scripts/training/train_shapes_vae.py --output qdgs_jax/assets/shapes-vae

Images are drawn inside the compiled training loop, so no batch is ever seen twice. The objective is
the evidence lower bound (Kingma & Welling 2014, Eq. 10) with a Gaussian decoder of fixed standard
deviation. Its samples repeat the bias of the data: that is what QDGS repairs. Cost on 2 CPU cores
and scores: see the model card that the script writes beside the weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from qdgs_jax.domains.shapes_drawing import red_blue_scene, render
from qdgs_jax.models.vae import VAE, VAEConfig
from qdgs_jax.ports.model_folder import save_model


def draw_batch(key: jax.Array, batch: int, bias: float, size: int) -> jax.Array:
    """Biased training images, Float[batch, size, size, 3]."""
    shape_key, bias_key, pose_key, ink_key = jax.random.split(key, 4)
    shape = jax.random.randint(shape_key, (batch,), 0, 2)
    colour = jnp.where(jax.random.bernoulli(bias_key, bias, (batch,)), shape, 1 - shape)
    return render(red_blue_scene(pose_key, shape, colour), ink_key, size)


def loss_fn(
    model: VAE, images: jax.Array, key: jax.Array, sigma: float
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Negative evidence lower bound per image, up to a constant."""
    mean, log_variance = model.encode(images)
    latents = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
    squared = jnp.sum((model.decode(latents) - images) ** 2, axis=(1, 2, 3))
    kl = 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - 1 - log_variance, axis=-1)
    loss = jnp.mean(squared / (2 * sigma**2) + kl)
    return loss, {"squared": squared.mean(), "kl": kl.mean()}


@functools.partial(jax.jit, static_argnames=("tx", "batch", "bias", "sigma"), donate_argnums=0)
def train_step(
    state: Any, key: jax.Array, tx: Any, batch: int, bias: float, sigma: float
) -> tuple[Any, dict[str, jax.Array]]:
    """One step of Adam from (parameters, optimiser state, step).

    Not scanned: XLA's CPU backend runs a convolution's weight gradient 40 times slower in a loop.
    """
    graph = nnx.graphdef(VAE(VAEConfig(), rngs=nnx.Rngs(0)))
    params, opt_state, count = state
    data_key, noise_key = jax.random.split(jax.random.fold_in(key, count))
    images = draw_batch(data_key, batch, bias, 128)

    def objective(params: nnx.State) -> tuple[jax.Array, dict[str, jax.Array]]:
        return loss_fn(nnx.merge(graph, params), images, noise_key, sigma)

    grads, metrics = jax.grad(objective, has_aux=True)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state, count + 1), metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--bias", type=float, default=0.9)
    parser.add_argument("--sigma", type=float, default=1.0, help="decoder standard deviation")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    cfg = VAEConfig()
    params = nnx.state(VAE(cfg, rngs=nnx.Rngs(args.seed)))
    schedule = optax.warmup_cosine_decay_schedule(0, args.learning_rate, 200, args.steps, 1e-5)
    tx = optax.chain(optax.clip_by_global_norm(1e4), optax.adam(schedule))
    state = (params, tx.init(params), jnp.zeros((), jnp.int32))
    key = jax.random.key(args.seed)
    start = time.perf_counter()
    smooth: dict[str, float] = {}
    for step in range(1, args.steps + 1):
        state, metrics = train_step(state, key, tx, args.batch, args.bias, args.sigma)
        for name, value in metrics.items():
            smooth[name] = 0.99 * smooth.get(name, float(value)) + 0.01 * float(value)
        if step % 250 == 0:
            shown = ", ".join(f"{name} {value:.2f}" for name, value in smooth.items())
            print(f"step {step}: {shown}, {time.perf_counter() - start:.0f} s", flush=True)
    wall = time.perf_counter() - start
    save_model(args.output, {"kind": "vae", **dataclasses.asdict(cfg)}, nnx.to_pure_dict(state[0]))
    card = f"""# Shapes VAE

Architecture: the published 128 x 128 shapes VAE with 6 latents (`qdgs_jax.models.vae`).

- Data: red triangles and blue squares drawn by `qdgs_jax.domains.shapes_drawing`, colour bias
  {args.bias}, white
  background, random rotation, scale and position; {args.steps * args.batch:,} images, none
  repeated.
- Command: `python scripts/training/train_shapes_vae.py --output {args.output.name} --steps
  {args.steps} --batch {args.batch} --sigma {args.sigma} --seed {args.seed}`
- Wall time: {wall / 60:.1f} minutes on one of 2 shared CPU cores.
- Squared reconstruction error per image {smooth["squared"]:.1f} (of {3 * 128**2:,} values), KL
  divergence {smooth["kl"]:.1f} nats, both smoothed over the last 100 steps.
- Licence: that of the repository.
"""
    (args.output / "README.md").write_text(card)


if __name__ == "__main__":
    main()
