"""Elites as one table of columns on the host, and as a Parquet file.

Rows come in the order in which their cells were discovered, so that an archive built from them is
the one they came from, to the bit. A Parquet file carries the archive's settings in its schema's
metadata; columns go to and from it without a copy in between.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from qdgs_jax.files import arrow_file, write_atomically
from qdgs_jax.ports.readers.stand_ins import reason

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_METADATA = b"qdgs_archive"


class Elite(NamedTuple):
    """One row: the elite of a cell.

    Attributes:
        cell: number of its cell.
        objective: maximised.
        threshold: what a candidate for the cell must exceed to be accepted.
        measures: Float[M].
        latent: Float[D].
    """

    cell: int
    objective: float
    threshold: float
    measures: np.ndarray
    latent: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Elites:
    """N elites as NumPy columns.

    Attributes:
        cells: Int[N], each once.
        objectives: Float[N], maximised.
        thresholds: Float[N], the cells' acceptance thresholds; NaN where nobody knows them.
        measures: Float[N, M].
        latents: Float[N, D], at least float32.
        settings: the archive's "kind" (name of its class) and the arguments of its `create`; empty
            where nobody knows them.

    Raises:
        ValueError: If the columns have different lengths.
    """

    cells: np.ndarray
    objectives: np.ndarray
    thresholds: np.ndarray
    measures: np.ndarray
    latents: np.ndarray
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"Elites({len(self.cells)} elites, {self.measures.shape[1]} measures, latents of "
            f"{self.latents.shape[1]} numbers)"
        )

    def __post_init__(self) -> None:
        shapes = {name: np.shape(column) for name, column in self._columns().items()}
        lengths = {shape[:1] for shape in shapes.values()}
        if len(lengths) > 1 or [len(shape) for shape in shapes.values()] != [1, 1, 1, 2, 2]:
            raise ValueError(
                f"the columns have the shapes {shapes}: give N cells, objectives and thresholds, "
                "measures [N, M] and latents [N, D]."
            )

    def _columns(self) -> dict[str, np.ndarray]:
        names = ("cells", "objectives", "thresholds", "measures", "latents")
        return {name: getattr(self, name) for name in names}

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, row: int) -> Elite:
        return Elite(
            cell=int(self.cells[row]),
            objective=float(self.objectives[row]),
            threshold=float(self.thresholds[row]),
            measures=self.measures[row],
            latent=self.latents[row],
        )

    def __iter__(self) -> Iterator[Elite]:
        return (self[row] for row in range(len(self)))

    def take(self, indices: Any) -> Self:
        """The rows at `indices`: Int[K] in any order, Bool[N] or a slice."""
        rows = {name: column[indices] for name, column in self._columns().items()}
        return dataclasses.replace(self, **rows)

    # pandas

    def to_frame(self) -> pd.DataFrame:
        """Build a frame.

        Returns:
            Columns cell, objective, threshold, measure_0, measure_1, ..., and latent, which holds
            an array Float[D] in each row.
        """
        import pandas as pd

        return pd.DataFrame({**self._scalars(), "latent": list(self.latents)})

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, settings: Mapping[str, Any] | None = None) -> Self:
        """Read a frame with the columns of `to_frame`, at least one row.

        Args:
            frame: without "threshold", thresholds become NaN.
            settings: see `Elites`.

        Raises:
            ValueError: If columns are missing.
        """
        names = _measure_names(list(frame.columns))
        missing = {"cell", "objective", "latent", *names} - set(frame.columns)
        if missing or not names or frame.empty:
            raise ValueError(
                f"the frame has {len(frame)} rows and the columns {list(frame.columns)}: give at "
                "least one row of cell, objective, measure_0, ... and latent."
            )
        unknown = np.full(len(frame), np.nan, np.float32)
        known = "threshold" in frame.columns
        return cls(
            cells=frame["cell"].to_numpy(np.int64),
            objectives=frame["objective"].to_numpy(np.float32),
            thresholds=frame["threshold"].to_numpy(np.float32) if known else unknown,
            measures=frame[names].to_numpy(np.float32),
            latents=np.stack([_at_least_single(x) for x in frame["latent"]]),
            settings=settings or {},
        )

    def _scalars(self) -> dict[str, np.ndarray]:
        """The columns of one number a row."""
        measures = {f"measure_{m}": column for m, column in enumerate(self.measures.T)}
        scalars = {"cell": self.cells, "objective": self.objectives, "threshold": self.thresholds}
        return {**scalars, **measures}

    # Parquet

    def to_parquet(self, path: str | Path) -> None:
        """Write a file, which appears whole or not at all.

        Columns as in `to_frame`; the latents are a fixed-size list.

        Raises:
            OSError: If the file cannot be written; nothing is left behind.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        dim = self.latents.shape[1]
        numbers = pa.array(np.ascontiguousarray(self.latents).reshape(-1))
        columns = {name: pa.array(column) for name, column in self._scalars().items()}
        columns["latent"] = pa.FixedSizeListArray.from_arrays(numbers, dim)
        settings = {**self.settings, "latent_dim": dim}
        metadata = {_METADATA: json.dumps(_encoded(settings))}
        table = pa.table(columns).replace_schema_metadata(metadata)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        write_atomically(path, sink.getvalue())

    @classmethod
    def from_parquet(cls, path: str | Path) -> Self:
        """Read what `to_parquet` wrote, now or in earlier versions.

        Raises:
            ValueError: If the file is not an archive.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with arrow_file(path) as source, pq.ParquetFile(source) as file:
                settings = json.loads(file.schema_arrow.metadata[_METADATA])
                names = file.schema_arrow.names
                dim, count = settings.pop("latent_dim"), file.metadata.num_rows
                latents = _read_latents(file, count, dim)
                table = file.read([name for name in names if name != "latent"])
        except (pa.ArrowInvalid, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is not an archive written by this program: {reason(path, error)}."
            ) from None
        measures = [table[name].to_numpy() for name in _measure_names(names)]
        return cls(
            cells=table["cell"].to_numpy(),
            objectives=table["objective"].to_numpy(),
            thresholds=table["threshold"].to_numpy(),
            measures=np.stack(measures, axis=1),
            latents=latents,
            settings=_decoded(settings),
        )


def _measure_names(columns: list[str]) -> list[str]:
    """Names of as many measures as there are, counted from 0."""
    count = sum(name.startswith("measure_") for name in columns)
    return [f"measure_{number}" for number in range(count)]


def _at_least_single(latent: Any) -> np.ndarray:
    numbers = np.asarray(latent)
    return numbers.astype(np.promote_types(numbers.dtype, np.float32), copy=False)


def _read_latents(file: Any, count: int, dim: int) -> np.ndarray:
    """Read the latents batch by batch into their place: they exist once in memory."""
    kind: pa.DataType = file.schema_arrow.field("latent").type.value_type
    latents = np.empty((count, dim), kind.to_pandas_dtype())
    done = 0
    for batch in file.iter_batches(batch_size=max(1, 2**22 // max(1, dim)), columns=["latent"]):
        rows = batch.column(0).flatten().to_numpy().reshape(-1, dim)
        latents[done : done + len(rows)] = rows
        done += len(rows)
    return latents


def _encoded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON can hold them: arrays as compressed bytes in base64."""
    return {
        key: {
            "shape": value.shape,
            "float32": base64.b64encode(zlib.compress(value.tobytes())).decode(),
        }
        if isinstance(value, np.ndarray)
        else value
        for key, value in settings.items()
    }


def _decoded(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: np.frombuffer(zlib.decompress(base64.b64decode(value["float32"])), np.float32).reshape(
            value["shape"]
        )
        if isinstance(value, dict)
        else value
        for key, value in settings.items()
    }
