"""What follows a search, looked at before it: data sets, their audit, experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qdgs_jax.datasets.ahead import check_data_set, picture_side
from qdgs_jax.domains.protocol import Domain
from qdgs_jax.domains.zero_shot import check_attributes
from qdgs_jax.experiments import experiments_of
from qdgs_jax.experiments.protocol import ExperimentError
from qdgs_jax.runs.config import RunConfig


def look_ahead(config: RunConfig, domain: Domain[Any], place: Path) -> list[str]:
    """Refuse a run whose data sets or audit cannot be made.

    An experiment that cannot be made is told alone, as the search and its data sets can do without.

    Args:
        config: the run.
        domain: its generator and CLIP.
        place: where its run file is.

    Returns:
        What is doubtful about what follows the search, in sentences.

    Raises:
        CheckpointError: the folder of augmentations is none.
        ValueError: see `check_data_set`; or a text of the audit is too long for CLIP.
    """
    doubts = check_data_set(config, domain)
    check_attributes(config, config.audit or {})
    for experiment in experiments_of(config):
        try:
            experiment.check_file(config, place)
            experiment.check_pictures(config, picture_side(config, domain), place)
        except ExperimentError as error:
            doubts.append(f"`qdgs train` will refuse this run: {error}")
    return doubts
