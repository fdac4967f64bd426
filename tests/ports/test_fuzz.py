"""Random files: whatever stands in them, the reader answers or refuses, and does nothing else.

`make test-fuzz` runs many more examples than `make test` does.
"""

import io
import pickletools
import resource
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch_writer as tw
from checkpoint_formats import safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import DATA

from qdgs_jax.ports.errors import CheckpointError
from qdgs_jax.ports.readers.folder import open_weights
from qdgs_jax.ports.readers.torch_file import named_tensors

SAMPLES = {path.name: path.read_bytes() for path in sorted((DATA / "ports").glob("*.p[tk]*"))}
STORED = {"data/0": np.ones(6, np.float32).tobytes()}


def wrapped(data: bytes) -> bytes:
    """A sound archive around a pickle, with one storage."""
    return tw.zip_bytes(tw.Raw(data), STORED)


def pickle_of(archive: bytes) -> bytes:
    """The pickle of an archive."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return file.read(next(name for name in file.namelist() if name.endswith("data.pkl")))


PICKLES = [
    pickle_of(tw.zip_bytes(tw.ordered({"a": np.ones((2, 3), np.float32)}, metadata=True))),
    tw.dump({"list": [1, (2, "x"), None], "set": True}, protocol=4),
    *(data for name, data in SAMPLES.items() if name.startswith("formats_nested")),
]
SAFETENSORS = safetensors(
    {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.ones(4, ml_dtypes.bfloat16),
        "e": np.zeros((0, 3), np.int64),
    }
)
BODY = 8 + int.from_bytes(SAFETENSORS[:8], "little")
WORDS = (
    b"NaN",
    b"1e400",
    b"-1",
    b"null",
    b"true",
    b"[",
    b"{",
    b'"',
    b"9" * 30,
    b"\\ud800",
    b"\xff",
)
NAMES = (
    b"cos\nsystem\n",
    b"cbuiltins\neval\n",
    b"ccollections\nOrderedDict\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch.storage\n_load_from_bytes\n",
    b"ctorch\nFloatStorage\n",
    b"cnumpy\ndtype\n",
    b"cnumpy.core.multiarray\nscalar\n",
    b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n",
)
FORBIDDEN = ("exec", "compile", "import", "os.", "subprocess.", "pickle.", "ctypes.", "socket.")
MEMORY = 256 << 10  # kilobytes that no example may add to the process
_watched: list[str] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is not None and event.startswith(FORBIDDEN):
        _watched.append(f"{event} {arguments!r:.80}")


sys.addaudithook(_audit)


@contextmanager
def nothing_happens() -> Iterator[None]:
    """Fail if code is run, modules are imported or the process grows."""
    global _watched
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _watched = seen = []
    try:
        yield
    finally:
        _watched = None
    assert not seen
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


def read(file: Any) -> int:
    """The number of bytes of all tensors of a file, each of which is read."""
    with open_weights(file) as root:
        return sum(tensor.numpy().nbytes for _, tensor in named_tensors(root))


def check(data: bytes, file: Any) -> None:
    """Read `data` from a file: an answer or a refusal."""
    file.write_bytes(data)
    with nothing_happens():
        try:
            read(file)
        except CheckpointError as refusal:
            assert str(refusal)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A place for the files, after whatever the reader imports lazily has been imported."""
    place = tmp_path_factory.mktemp("fuzz") / "x.pt"
    for data in [*SAMPLES.values(), SAFETENSORS]:
        place.write_bytes(data)
        try:
            read(place)
        except CheckpointError:
            continue
    return place


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes], words: tuple[bytes, ...] = NAMES) -> bytes:
    """One of the originals with pieces cut out, repeated, moved, overwritten or put in."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.sampled_from([0, 1, 2, 4, 8, 60])))
        kind = draw(st.sampled_from(["overwrite", "insert", "repeat", "move", "cut"]))
        if kind == "overwrite":
            data[start:stop] = draw(st.binary(min_size=stop - start, max_size=stop - start))
        elif kind == "insert":
            data[start:start] = draw(st.one_of(st.sampled_from(words), st.binary(max_size=12)))
        elif kind == "repeat":
            data[start:start] = data[start:stop] * draw(st.sampled_from([1, 3, 500]))
        elif kind == "move":
            piece = bytes(data[start:stop])
            del data[start:stop]
            place = draw(st.integers(0, len(data)))
            data[place:place] = piece
        else:
            del data[start : draw(st.sampled_from([stop, len(data)]))]
    return bytes(data)


_BARE = [op.code.encode("latin1") for op in pickletools.opcodes if op.arg is None]
OPCODES = st.one_of(
    st.sampled_from(_BARE),
    st.sampled_from(NAMES),
    st.binary(max_size=9).map(lambda text: b"X" + len(text).to_bytes(4, "little") + text),
    st.binary(max_size=9).map(lambda text: b"C" + bytes([len(text)]) + text),
    st.integers(0, 9).map(lambda index: b"q" + bytes([index])),
    st.integers(0, 9).map(lambda index: b"h" + bytes([index])),
    st.integers(-(2**31), 2**31 - 1).map(lambda n: b"J" + n.to_bytes(4, "little", signed=True)),
    st.binary(min_size=8, max_size=8).map(lambda number: b"G" + number),
    st.binary(max_size=9).map(lambda number: b"\x8a" + bytes([len(number)]) + number),
)
PROGRAMS = st.lists(OPCODES, max_size=40).map(lambda ops: b"\x80\x02" + b"".join(ops) + b".")

fuzz = settings(suppress_health_check=list(HealthCheck))


@fuzz
@given(data=damaged(list(SAMPLES.values())))
def test_damaged_files(data: bytes, file: Any) -> None:
    check(data, file)


@fuzz
@given(data=damaged(PICKLES), wrap=st.booleans())
def test_damaged_pickles_in_sound_archives(data: bytes, wrap: bool, file: Any) -> None:
    check(wrapped(data) if wrap else data, file)


@fuzz
@given(data=PROGRAMS, wrap=st.booleans())
def test_random_programs_of_pickle_opcodes(data: bytes, wrap: bool, file: Any) -> None:
    check(wrapped(data) if wrap else data, file)


@fuzz
@given(data=damaged([SAFETENSORS], WORDS))
def test_damaged_safetensors(data: bytes, file: Any) -> None:
    check(data, file)


@fuzz
@given(header=damaged([SAFETENSORS[8:BODY]], WORDS))
def test_damaged_headers_of_safetensors(header: bytes, file: Any) -> None:
    check(len(header).to_bytes(8, "little") + header + SAFETENSORS[BODY:], file)


def test_what_must_not_happen_is_noticed() -> None:
    with pytest.raises(AssertionError, match="exec"), nothing_happens():
        exec("1")
