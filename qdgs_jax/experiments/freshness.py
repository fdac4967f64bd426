"""Whether results belong to the data sets that a run has now.

Data sets can be written anew, by another margin or of a longer search, and results of the former
ones would then stand beside them in the report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from qdgs_jax.datasets import manifest
from qdgs_jax.files import write_atomically
from qdgs_jax.runs.folder import RunFolder

FILE = "data_sets.json"  # beside an experiment's results
Seen = Mapping[str, tuple[str, str]]  # arm -> manifest as seen from the run, its SHA-256


def look(run: RunFolder, data_sets: Mapping[str, Path]) -> Seen:
    """Tell the data sets of an experiment from others that may lie in their place later.

    Args:
        run: the run.
        data_sets: the folder of each arm's data set, inside the run's.
    """
    manifests = {
        arm: manifest.shards_folder(place) / manifest.MANIFEST for arm, place in data_sets.items()
    }
    return {
        arm: (path.relative_to(run.path).as_posix(), manifest.digest_of(path))
        for arm, path in manifests.items()
    }


def keep(folder: Path, seen: Seen) -> None:
    """Write beside an experiment's results which data sets they are of."""
    write_atomically(folder / FILE, (json.dumps(seen, indent=1) + "\n").encode())


def written_anew(run: RunFolder, name: str) -> list[str]:
    """The arms whose data set is another one than an experiment saw; none where nobody kept it.

    Args:
        run: the run.
        name: of the experiment.

    Raises:
        ValueError: the file is damaged.
    """
    path = run.path / name / FILE
    try:
        seen = json.loads(path.read_text(encoding="utf-8"))
        places = {arm: (run.path / place, digest) for arm, (place, digest) in seen.items()}
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error}.") from None
    return [arm for arm, (place, digest) in places.items() if manifest.written_anew(place, digest)]
