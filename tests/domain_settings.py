"""Run files with a few fields changed, for the tests of domains."""

import tomllib

from qdgs_jax.runs.config import RunConfig


def settings(text, **changes):
    """The run of a run file; `changes` are fields of tables: domain={"cutouts": 2}."""
    tables = tomllib.loads(text)
    for name, fields in changes.items():
        tables[name] = {**tables.get(name, {}), **fields}
    return RunConfig.model_validate(tables)
