"""Checkpoints in the background: a thread writes one while the search goes on."""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qdgs_jax.runs.checkpoint import rows_nbytes, take_snapshot
from qdgs_jax.runs.host_pool import HostPool

KEPT = 2  # checkpoints: the newest, and one more should that be damaged later
REST = 20.0  # times as long as a checkpoint took to write, until the next: slow disks cost no more
_ROOM = 1.1  # memory made ready, per byte of the rows so far: more cells will be occupied


def find_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a folder, newest first: their steps and their folders."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for entry in folder.iterdir():
            if match := re.fullmatch(r"step-(\d+)", entry.name):
                found.append((int(match[1]), entry))
    return sorted(found, reverse=True)


class CheckpointWriter:
    """Writes the checkpoints of one search, one at a time.

    Attributes:
        stood_still: seconds that the search waited for copies to the host.
        written: step of the newest checkpoint that is whole; None before the first.
    """

    def __init__(
        self,
        folder: Path,
        seconds: float,
        about: Mapping[str, Any],
        before: Callable[[], None] = lambda: None,
        written: int | None = None,
        rest: float = REST,
    ) -> None:
        """Begin to count the time; nothing is written yet.

        Args:
            folder: where the checkpoints are.
            seconds: from one to the next; 0 is as often as possible.
            about: what each says of itself.
            before: called by the thread before a checkpoint appears.
            written: step of the checkpoint that the search was taken up from.
            rest: from one to the next pass at least so many times the seconds that it took to
                write, unless `seconds` is 0.
        """
        self._folder = folder
        self._seconds = seconds
        self._about = about
        self._before = before
        self._pool = HostPool()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._last = time.monotonic()
        self._ready = False
        self._rest = rest
        self._took = 0.0
        self.stood_still = 0.0
        self.written = written

    def offer(self, step: int, state: Any, elites: int) -> None:
        """Begin a checkpoint if it is time and the one before is done; `state` may be donated then.

        Half the time before, memory is made ready for it in the background.

        Args:
            step: that the state is of.
            state: of the search.
            elites: how many its archive has.

        Raises:
            OSError: the one before could not be written.
        """
        if self.busy:
            return
        passed = time.monotonic() - self._last
        if passed >= self.interval:
            self.wait()
            self._begin(step, state)
        elif passed >= self.interval / 2 and not self._ready:
            self.wait()
            self._ready = True
            wanted = int(_ROOM * rows_nbytes(state, elites))
            self._start(lambda: self._pool.prepare(wanted))

    @property
    def interval(self) -> float:
        """Seconds from the last checkpoint to the next."""
        return max(self._seconds, self._rest * self._took) if self._seconds else 0.0

    @property
    def busy(self) -> bool:
        """Whether something is being done in the background."""
        return self._thread is not None and self._thread.is_alive()

    def finish(self, step: int, state: Any) -> None:
        """Leave with a checkpoint of this state, whole on the disk when this returns.

        Raises:
            OSError: it could not be written.
        """
        self.wait()
        if self.written != step:
            self._begin(step, state)
            self.wait()

    def wait(self) -> None:
        """Wait until nothing is being written.

        Raises:
            OSError: it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _begin(self, step: int, state: Any) -> None:
        began = time.monotonic()
        snapshot = take_snapshot(state, self._pool)
        self._last = time.monotonic()
        self._ready = False
        self.stood_still += self._last - began

        def write() -> None:
            self._before()
            place = self._folder / f"step-{step:09d}"
            try:
                snapshot.write(place, self._about)
            except OSError as error:
                if not error.strerror:  # says all itself
                    raise
                raise OSError(
                    error.errno,
                    f"{error.strerror} while writing a checkpoint; what was written before is "
                    "kept: make room, then go on",
                    str(place),
                ) from error
            self.written = step
            for _, old in find_checkpoints(self._folder)[KEPT:]:
                shutil.rmtree(old, ignore_errors=True)
            snapshot.give_back(self._pool)
            self._took = time.monotonic() - self._last

        self._start(write)

    def _start(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # raised where the search can see it
                self._error = error

        self._thread = threading.Thread(target=guarded, name="checkpoint", daemon=True)
        self._thread.start()
