"""What a run was made with: kept in its folder by the process that did the work.

A run that was stopped and taken up again has a stint for each time, possibly on other machines.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdgs_jax.domains.weights import fingerprints
from qdgs_jax.files import write_atomically

if TYPE_CHECKING:
    from qdgs_jax.domains.protocol import DomainSettings

FILE = "provenance.json"
PACKAGES = ("qdgs-jax", "jax", "jaxlib", "flax", "qdax", "numpy")
_FORMAT, _VERSION = "qdgs-provenance", 1


@dataclasses.dataclass(frozen=True)
class Stint:
    """One process that searched.

    Attributes:
        versions: those of `PACKAGES` and of "python".
        platform: the operating system and the processor's family.
        backend: JAX's name of the kind of device, such as "cpu" or "gpu".
        device: the device's own name.
        device_count: how many of these JAX saw.
        seed: of the run.
        command: the command line.
        started: when, in UTC, ISO 8601.
        finished: when it ended in order; None if it was killed or is still running.
        wall_seconds: time that it searched for; of one that was killed, until its last checkpoint.
        weights: fingerprints of generator and CLIP, see `domains.weights.fingerprints`.
    """

    versions: Mapping[str, str]
    platform: str
    backend: str
    device: str
    device_count: int
    seed: int
    command: Sequence[str]
    started: str
    finished: str | None = None
    wall_seconds: float = 0.0
    weights: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Provenance:
    """All stints of a run, oldest first, at least one."""

    stints: tuple[Stint, ...]

    @property
    def last(self) -> Stint:
        """The stint that finished the run, or the newest so far."""
        return self.stints[-1]

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions as of the last stint."""
        return self.last.versions

    @property
    def platform(self) -> str:
        """Operating system and processor of the last stint."""
        return self.last.platform

    @property
    def device(self) -> str:
        """Device of the last stint."""
        return self.last.device

    @property
    def device_count(self) -> int:
        """Devices that the last stint saw."""
        return self.last.device_count

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.last.seed

    @property
    def command(self) -> Sequence[str]:
        """Command line of the last stint."""
        return self.last.command

    @property
    def started(self) -> str:
        """When the first stint started, in UTC."""
        return self.stints[0].started

    @property
    def finished(self) -> str | None:
        """When the last stint ended in order, in UTC."""
        return self.last.finished

    @property
    def wall_seconds(self) -> float:
        """Time that all stints searched for."""
        return sum(stint.wall_seconds for stint in self.stints)


def begin_stint(folder: Path, seed: int, weights: Mapping[str, str]) -> Stint:
    """Note in a run folder that this process searches now, with these weights."""
    import jax

    devices = jax.devices()
    stint = Stint(
        versions={
            **{name: importlib.metadata.version(name) for name in PACKAGES},
            "python": platform.python_version(),
        },
        platform=f"{platform.system()} {platform.release()}, {platform.machine()}",
        backend=devices[0].platform,
        device=devices[0].device_kind,
        device_count=len(devices),
        seed=seed,
        command=tuple(sys.argv),
        started=_now(),
        weights=dict(weights),
    )
    before = read_provenance(folder)
    _write(folder, (*(before.stints if before else ()), stint))
    return stint


def note_time(folder: Path, stint: Stint, wall_seconds: float, ended: bool = False) -> None:
    """Note how long the newest stint has searched for, and whether it ended in order now."""
    before = read_provenance(folder)
    earlier = before.stints[:-1] if before else ()
    finished = _now() if ended else None
    now = dataclasses.replace(stint, finished=finished, wall_seconds=round(wall_seconds, 3))
    _write(folder, (*earlier, now))


def check_weights(folder: str | Path, domain: DomainSettings) -> None:
    """Refuse to take a run's latents for those of other weights than it was searched with.

    Args:
        folder: of the run.
        domain: the table [domain] of its run file.

    Raises:
        ValueError: generator or CLIP are others; provenance is damaged.
    """
    kept = read_provenance(folder)
    begun = kept.last.weights if kept is not None else {}
    now = fingerprints(domain)
    for field in begun:
        if now.get(field, begun[field]) != begun[field]:
            raise ValueError(
                f"domain.{field} = {getattr(domain, field)!r} holds other weights than those that "
                f"{folder} was searched with: put these back, or begin another run."
            )


def read_provenance(folder: str | Path) -> Provenance | None:
    """Read what a run was made with; None where nothing was kept.

    Raises:
        ValueError: the file is damaged or of another version.
    """
    file = Path(folder) / FILE
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
        if (content["format"], content["version"]) != (_FORMAT, _VERSION):
            raise ValueError(f"its version is {content['version']}")
        return Provenance(tuple(Stint(**stint) for stint in content["stints"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is damaged or of another version of this program: {error}."
        ) from None


def _write(folder: Path, stints: Sequence[Stint]) -> None:
    rows = [dataclasses.asdict(stint) for stint in stints]
    content = {"format": _FORMAT, "version": _VERSION, "stints": rows}
    write_atomically(folder / FILE, (json.dumps(content, indent=1) + "\n").encode())


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
