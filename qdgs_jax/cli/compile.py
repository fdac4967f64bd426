"""`qdgs compile`: what a run costs on an accelerator that is not at hand, by its own compiler."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qdgs_jax.cli.console import if_stopped, say, show_table

if TYPE_CHECKING:
    from qdgs_jax.runs.config import RunConfig
    from qdgs_jax.targets.estimate import Estimate

NAMES = ("search", "generate", "train")


def compile_run(
    run: Annotated[
        str, typer.Argument(help="A run file, or the name of a packaged one.", metavar="RUN")
    ],
    target: Annotated[
        list[str],
        typer.Option(
            help="tpu:v5e:2x2, tpu:v5p:2x2x1, tpu:v6e:2x2 or any topology; cuda:h100 or "
            "cuda:h200. Can be given several times.",
        ),
    ],
    program: Annotated[
        list[str] | None,
        typer.Option(
            help="search, generate or train; can be given several times.",
            show_default="all that the run has",
        ),
    ] = None,
    generator: Annotated[
        str | None,
        typer.Option(
            help="Instead of the run's: a folder, a file of settings in JSON, or a published "
            "size (ffhq-256, ffhq-512, ffhq-1024). No weights are read.",
        ),
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option(help="Likewise: vit-b-32, vit-b-16, vit-l-14, vit-l-14-336."),
    ] = None,
    emitters: Annotated[
        int | None, typer.Option(min=1, help="Emitters, instead of the run file's.")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=0, help="Latents evaluated at a time, instead of the run file's; 0: all."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32 or bfloat16, instead of the run file's.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--json", help="Also write all figures into this file.")
    ] = None,
) -> None:
    """Compile a run for TPUs or GPUs without having one: memory, speed, where the time goes."""
    say(f"{run}: reading the run; nothing of it is executed")
    from qdgs_jax.targets.chips import Target

    targets = [Target.parse(text) for text in target]
    unknown = sorted(set(program or ()) - set(NAMES))
    if unknown:
        raise ValueError(f"--program {unknown[0]}: give one of {', '.join(NAMES)}.")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # leaves accelerators of this machine alone
    config = configured(run, generator, clip, emitters, batch, dtype)
    if generator is None:  # whose latents the run's augmentations are not meant for
        _check_augmentations(config)
    with if_stopped(lambda: "what was compiled so far stands above; the same command begins again"):
        found = _estimates(config, targets, program)
        if out is not None:
            from qdgs_jax.files import write_atomically

            text = json.dumps([each.to_json() for each in found], indent=1)
            write_atomically(out, f"{text}\n".encode())
            say(f"wrote {out}")


def _check_augmentations(config: RunConfig) -> None:
    """Refuse a run whose data sets `qdgs search` would refuse to make."""
    from qdgs_jax.datasets.augment import check_augmentations
    from qdgs_jax.targets.abstract import abstract_domain

    check_augmentations(config, abstract_domain(config).latent_dim)


def _estimates(config: RunConfig, targets: list, programs: list[str] | None) -> list[Estimate]:
    """Compile and show each program for each target."""
    from qdgs_jax.targets.estimate import estimate
    from qdgs_jax.targets.programs import lower, programs_of

    found: list[Estimate] = []
    for target in targets:
        target.devices()  # what is missing is said before anything else is done
        for name in programs or programs_of(config):
            say(f"{target}: lowering {name}")
            work = lower(config, name, target)
            say(f"{target}: compiling {name}, which may take minutes")
            found.append(estimate(work, target))
            for line in found[-1].lines():
                say(line)
            for title, header, rows in found[-1].tables():
                show_table(title, header, rows)
    return found


def configured(
    run: str,
    generator: str | None,
    clip: str | None,
    emitters: int | None,
    batch: int | None,
    dtype: str | None,
) -> RunConfig:
    """The run, with what the command line says in the place of what the file says."""
    from qdgs_jax.cli.init import packaged_run
    from qdgs_jax.runs.config import parse_run, read_run_file

    replaced = {"generator": generator, "clip": clip}
    domain = {name: value for name, value in replaced.items() if value is not None}
    if Path(run).suffix == "" and not Path(run).exists():
        config = parse_run(packaged_run(run), run)
    else:
        config = read_run_file(run, sizes_alone=True)
    changes: dict[str, Mapping[str, object]] = {
        "domain": domain,
        "search": {} if emitters is None else {"emitters": emitters},
        "evaluation": {
            **({} if batch is None else {"batch": batch}),
            **({} if dtype is None else {"dtype": dtype}),
        },
    }
    updated = {}
    for table, values in changes.items():
        before = getattr(config, table)
        updated[table] = type(before)(**{**before.model_dump(), **values}) if values else before
    return config.model_copy(update=updated)
