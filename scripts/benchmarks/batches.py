"""What `[evaluation] batch` moves in a search, stage by stage, and why.

    python scripts/benchmarks/batches.py

The packaged run's CMA-MAEGA on the shapes domain, all latents at once and 8 at a time. First both
score and differentiate the same latents: that is what a batch itself moves, by the rounding of
products of other sizes. Then both search from the same latents, and so does a third that has no
batch but starts one rounding (a unit in the last place) away: it shows how far a search carries a
difference of that size by itself. In the end all elites of the batched search are scored at once.
"""

from __future__ import annotations

import argparse
import tomllib

import jax
import jax.numpy as jnp
import numpy as np
from memory import shapes_domain

from qdgs_jax.algorithms import archive_settings
from qdgs_jax.domains.evaluation import Computation
from qdgs_jax.domains.prompted import PromptedDomain
from qdgs_jax.domains.weights import ASSETS
from qdgs_jax.emitters.registry import build_emitter
from qdgs_jax.runs.config import RunConfig
from qdgs_jax.search import Search, SearchState

LIMIT = 1e-4  # of objectives


def largest(found: jax.Array, wanted: jax.Array) -> float:
    """Largest absolute difference."""
    return float(np.abs(np.asarray(found) - np.asarray(wanted)).max())


def stages(domains: list[PromptedDomain], latents: jax.Array) -> None:
    """Print what a batch moves at the same latents."""
    key = jax.random.key(2)
    print(f"the same {len(latents)} latents        | largest difference | scale")
    scored = [
        jax.jit(domain.evaluate_with_jacobian)(domain.params, (), latents, key)
        for domain in domains
    ]
    (plain, slopes), (split, others) = scored
    low, high = float(plain.fitnesses.min()), float(plain.fitnesses.max())
    print(
        f"objective                    | {largest(split.fitnesses, plain.fitnesses):.1e} | "
        f"{low:.1f} to {high:.1f}"
    )
    print(
        f"measures                     | {largest(split.descriptors, plain.descriptors):.1e} | "
        f"{float(plain.descriptors.min()):.2f} to {float(plain.descriptors.max()):.2f}"
    )
    for row, name in enumerate(("objective", *(f"measure {m}" for m in range(2)))):
        lengths = jnp.linalg.norm(slopes[:, row], axis=-1)
        apart = jnp.linalg.norm(others[:, row] - slopes[:, row], axis=-1)
        print(
            f"gradient of the {name:12} | {float(apart.max()):.1e} | length "
            f"{float(lengths.min()):.2g} to {float(lengths.max()):.2g}, "
            f"relative {float((apart / lengths).max()):.1e}"
        )


def compared(name: str, found: SearchState, wanted: SearchState) -> str:
    """One row: how far apart two searches are."""
    a, b = found.archive, wanted.archive
    cells = [set(np.flatnonzero(np.isfinite(np.asarray(x.fitnesses))).tolist()) for x in (a, b)]
    shared = np.array(sorted(cells[0] & cells[1]))
    moved = np.abs(np.asarray(a.fitnesses)[shared] - np.asarray(b.fitnesses)[shared])
    return (
        f"| {name} | {largest(found.emitter.theta, wanted.emitter.theta):.1e} | "
        f"{largest(found.emitter.strategy.mean, wanted.emitter.strategy.mean):.1e} | "
        f"{len(cells[0] ^ cells[1])} of {len(cells[1])} | {moved.max():.1e} | "
        f"{int((moved > LIMIT).sum())} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--emitters", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    args = parser.parse_args()
    run = RunConfig.model_validate(tomllib.loads((ASSETS / "shapes.toml").read_text()))
    settings = run.search.model_copy(update={"emitters": args.emitters})
    domains = [shapes_domain(Computation(batch=batch), cutouts=0) for batch in (0, 8)]
    plain = domains[0]
    latents = plain.sample(plain.params, jax.random.key(1), 3 * args.emitters)
    stages(domains, latents)
    searches = [
        Search(
            domain,
            build_emitter(settings.algorithm, settings, domain.latent_dim, 2),
            dims=tuple(measure.cells for measure in run.measures),
            ranges=tuple(measure.range for measure in run.measures),
            chunk=1,
            **archive_settings(settings.algorithm, 0.02, 0.0),
        )
        for domain in domains
    ]
    start = latents[: args.emitters]
    nudged = jnp.nextafter(start, jnp.inf)
    states = [
        search.init(first, jax.random.key(3))
        for search, first in ((searches[0], start), (searches[1], start), (searches[0], nudged))
    ]
    print(f"\n{settings.algorithm}, {args.emitters} emitters, {settings.branches} branches\n")
    print(
        "| beside all at once | parents | mean of coefficients | other cells | objectives | "
        f"above {LIMIT:g} |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for step in range(1, args.steps + 1):
        states = [
            search.run(state, 1)[0]
            for search, state in zip((*searches, searches[0]), states, strict=True)
        ]
        print(compared(f"batch = 8, step {step}", states[1], states[0]))
        print(compared(f"one rounding, step {step}", states[2], states[0]), flush=True)
    elites = states[1].archive.elites()
    again = jax.jit(plain.evaluate)(
        plain.params, (), jnp.asarray(elites.latents), jax.random.key(4)
    )
    moved = np.abs(np.asarray(again.fitnesses) - np.asarray(elites.objectives))
    print(
        f"\nall {len(moved)} elites of batch = 8, scored at once: objectives of "
        f"{elites.objectives.min():.1f} to {elites.objectives.max():.1f} move by up to "
        f"{moved.max():.1e}, {int((moved > LIMIT).sum())} of them by more than {LIMIT:g}; "
        f"measures by up to {largest(again.descriptors, elites.measures):.1e}"
    )


if __name__ == "__main__":
    main()
