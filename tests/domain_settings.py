"""What domains read of a run file, as plain objects: a `RunSettings` without `qdgs_jax.runs`."""

import tomllib
from types import SimpleNamespace

from qdgs_jax.domains.prompts import split_prompt

DEFAULTS = {
    "domain": {"cutouts": 0, "arguments": {}, "folder": None},
    "objective": {"norm_penalty": 0.0, "uniqueness": 0.0},
    "search": {"emitters": 8, "start_batches": 32, "start_batch_size": 16},
    "evaluation": {"batch": 0, "dtype": "auto", "precision": "auto", "remat": False},
}


def settings(text, **changes):
    """The tables of a run file; `changes` are fields of tables: domain={"cutouts": 2}."""
    tables = {"seed": 0, **tomllib.loads(text)}
    for name, defaults in DEFAULTS.items():
        tables[name] = {**defaults, **tables.get(name, {}), **changes.pop(name, {})}
    tables.update(changes)
    for side in ("positive", "negative"):
        for table in (tables["objective"], *tables["measures"]):
            table[side] = split_prompt(table[side])
    tables["measures"] = [SimpleNamespace(**table) for table in tables["measures"]]
    nested = {name: SimpleNamespace(**tables[name]) for name in DEFAULTS}
    return SimpleNamespace(**{**tables, **nested})
