"""Archives as tables: pandas frames and Parquet files, one row per elite.

Rows come in the order in which their cells were discovered, so that an archive read back is the one
written, to the bit. A Parquet file carries the archive's settings in its schema's metadata.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from qdgs_jax.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

    from qdgs_jax.archive.base import Archive

A = TypeVar("A", bound="Archive")
_METADATA = b"qdgs_archive"


@dataclasses.dataclass(frozen=True)
class Elites:
    """N elites as NumPy columns.

    Attributes:
        cells: Int[N].
        objectives: Float[N].
        thresholds: Float[N], NaN where nobody knows them.
        measures: Float[N, M].
        latents: Float[N, D].
        settings: of the archive.
    """

    cells: np.ndarray
    objectives: np.ndarray
    thresholds: np.ndarray
    measures: np.ndarray
    latents: np.ndarray
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.cells)

    def take(self, indices: Any) -> Self:
        """The rows at `indices`."""
        names = ("cells", "objectives", "thresholds", "measures", "latents")
        return dataclasses.replace(self, **{name: getattr(self, name)[indices] for name in names})


def to_frame(archive: Archive) -> pd.DataFrame:
    """List the elites in a table.

    Returns:
        Columns cell, objective, threshold, measure_0, measure_1, ..., and latent, which holds an
        array Float[D] in each row.

    Raises:
        ValueError: If the genotypes are not a single array Float[C, D], or there are extra scores.
    """
    import pandas as pd

    _check_columns(archive)
    host = jax.device_get(archive.replace(genotypes=archive.latents))
    cells = host.occupied_cells[: int(host.num_elites)]
    columns: dict[str, Any] = {
        "cell": cells,
        "objective": host.fitnesses[cells, 0],
        "threshold": host.thresholds[cells],
    }
    for number, measure in enumerate(host.descriptors[cells].T):
        columns[f"measure_{number}"] = measure
    columns["latent"] = list(host.genotypes[cells].astype(np.float32, copy=False))
    return pd.DataFrame(columns)


def from_frame(cls: type[A], frame: pd.DataFrame, **settings: Any) -> A:
    """Build an archive from a table.

    Args:
        cls: kind of the archive.
        frame: columns as `to_frame` makes them, at least one row. Without "threshold", each elite
            was accepted alone: thresholds follow from inserting the rows one by one.
        settings: those of `cls.create`.

    Raises:
        ValueError: If columns are missing, a row is not finite in the precision of the archive, a
            threshold is not between threshold_min and the objective, cells repeat or are not those
            of their measures.
    """
    count = sum(name.startswith("measure_") for name in frame.columns)
    names = [f"measure_{number}" for number in range(count)]
    missing = {"cell", "objective", "latent", *names} - set(frame.columns)
    if missing or not names or frame.empty:
        raise ValueError(
            f"the frame has {len(frame)} rows and the columns {list(frame.columns)}: give at least "
            "one row of cell, objective, measure_0, ... and latent."
        )
    latents = np.stack([np.asarray(x, np.float32) for x in frame["latent"]])
    archive = cls.create(latents[0], **settings)
    _check_columns(archive)
    with np.errstate(over="ignore"):  # reported below
        latents = latents.astype(archive.dtype)
    descriptors = frame[names].to_numpy(np.float32)
    fitnesses = frame["objective"].to_numpy(np.float32)
    cells = frame["cell"].to_numpy(np.int64)
    _check_rows(archive, latents, descriptors, fitnesses, cells)
    if "threshold" in frame.columns:
        thresholds = frame["threshold"].to_numpy(np.float32)
        _check_row_thresholds(archive, thresholds, fitnesses)
    else:
        thresholds = np.asarray(archive.add(latents, descriptors, fitnesses).thresholds)[cells]
    occupied = np.zeros(archive.num_cells, np.int32)
    occupied[-1] = ~len(cells)
    occupied[: len(cells)] = cells

    def write(table: jax.Array, rows: np.ndarray) -> jax.Array:
        host = np.array(table)
        host[cells] = rows
        return jnp.asarray(host)

    filled: A = archive.replace(
        genotypes=write(archive.genotypes, latents.view(archive.genotypes.dtype)),
        fitnesses=write(archive.fitnesses, fitnesses[:, None]),
        descriptors=write(archive.descriptors, descriptors),
        thresholds=write(archive.thresholds, thresholds),
        occupied_cells=jnp.asarray(occupied),
    )
    return filled


def to_parquet(archive: Archive, path: str | Path) -> None:
    """Write an archive to a file, which appears whole or not at all.

    Raises:
        ValueError: If the genotypes are not a single array Float[C, D], or there are extra scores.
        OSError: If the file cannot be written; nothing is left behind.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    frame = to_frame(archive)
    dim = archive.genotypes.shape[1]
    latents = np.concatenate([np.zeros(0, np.float32), *frame.pop("latent")])
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.append_column(
        "latent", pa.FixedSizeListArray.from_arrays(pa.array(latents, pa.float32()), dim)
    )
    settings = {"kind": type(archive).__name__, "latent_dim": dim, **_encoded(archive.settings())}
    table = table.replace_schema_metadata({_METADATA: json.dumps(settings)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())


def from_parquet(cls: type[A], path: str | Path) -> A:
    """Read what `to_parquet` wrote.

    Raises:
        ValueError: If the file is not an archive, or one of another kind.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        settings = json.loads(table.schema.metadata[_METADATA])
    except (pa.ArrowInvalid, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not an archive written by this program: {error}.") from None
    kind, dim = settings.pop("kind"), settings.pop("latent_dim")
    if kind != cls.__name__:
        raise ValueError(f"{path} holds a {kind}: read it with {kind}.from_parquet.")
    settings = _decoded(settings)
    if not table.num_rows:
        empty: A = cls.create(np.zeros(dim, np.float32), **settings)
        return empty
    latents = table["latent"].combine_chunks().flatten().to_numpy().reshape(-1, dim)
    frame = table.drop_columns("latent").to_pandas()
    return from_frame(cls, frame.assign(latent=list(latents)), **settings)


def _check_columns(archive: Archive) -> None:
    shapes = jax.tree.map(jnp.shape, archive.genotypes)
    if not isinstance(shapes, tuple) or len(shapes) != 2 or hasattr(shapes[0], "shape"):
        raise ValueError(
            f"the archive's genotypes have the shapes {shapes}: only latents Float[C, D] have a "
            "place in a table."
        )
    if archive.keys_extra_scores:
        raise ValueError(
            f"the archive has the extra scores {archive.keys_extra_scores}, which have no place in "
            "a table: leave them out with archive.replace(extra_scores={}, keys_extra_scores=())."
        )


def _check_row_thresholds(archive: Archive, thresholds: np.ndarray, fitnesses: np.ndarray) -> None:
    highest = np.maximum(fitnesses, np.float32(archive.threshold_min))
    sound = (thresholds >= np.float32(archive.threshold_min)) & (thresholds <= highest)
    if not sound.all():
        row = int(np.argmin(sound))
        raise ValueError(
            f"row {row} has the threshold {thresholds[row]}: give one from threshold_min "
            f"{archive.threshold_min} to the objective {fitnesses[row]}, or drop the column."
        )


def _check_rows(
    archive: Archive,
    latents: np.ndarray,
    descriptors: np.ndarray,
    fitnesses: np.ndarray,
    cells: np.ndarray,
) -> None:
    finite = np.isfinite(fitnesses) & np.isfinite(descriptors).all(1) & np.isfinite(latents).all(1)
    if not finite.all():
        raise ValueError(
            f"row {int(np.argmin(finite))} has a number that is not finite in {archive.dtype}."
        )
    if descriptors.shape[1] != archive.centroids.shape[1]:
        raise ValueError(
            f"the frame has {descriptors.shape[1]} measures but the archive "
            f"{archive.centroids.shape[1]}."
        )
    if len(np.unique(cells)) != len(cells):
        raise ValueError("a cell appears twice: each holds one elite.")
    own = np.asarray(archive.cell_of(jnp.asarray(descriptors)))
    if (own != cells).any():
        row = int(np.argmax(own != cells))
        raise ValueError(
            f"row {row} says cell {cells[row]} but its measures belong to cell {own[row]}: give "
            "the settings of the archive that the frame came from."
        )


def _encoded(settings: dict[str, Any]) -> dict[str, Any]:
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


def _decoded(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        key: np.frombuffer(zlib.decompress(base64.b64decode(value["float32"])), np.float32).reshape(
            value["shape"]
        )
        if isinstance(value, dict)
        else value
        for key, value in settings.items()
    }
