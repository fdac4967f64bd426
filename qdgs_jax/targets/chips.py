"""Accelerators that programs are compiled for without being there: names, figures, topologies.

Clocks, peaks and bandwidths are the vendors': cloud.google.com/tpu/docs/{v5e,v5p,v6e} and
nvidia.com/en-us/data-center/{h100,h200}. A chip of the v5p has two cores that work as one.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GIB = 2**30


class TargetError(ValueError):
    """A target that cannot be compiled for; the message says what can, or what is missing."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """What is known of an accelerator.

    Attributes:
        backend: "tpu" or "gpu", as JAX calls it.
        clock: cycles per second that the compiler's estimates count.
        peak: products and sums per second of dense bfloat16 matrix products, FLOP/s.
        bandwidth: bytes per second of its memory.
        memory: bytes of it.
        topology: the smallest, or what describes the card to the compiler.
    """

    backend: str
    clock: float
    peak: float
    bandwidth: float
    memory: int
    topology: str


_CARD = """
gpu_device_info {{ threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 threads_per_core_limit: 2048
  core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: {bandwidth} l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: {memory} shared_memory_per_block_optin: 232448
  cuda_compute_capability {{ major: 9 }} registers_per_core_limit: 65536
  registers_per_block_limit: 65536 }}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
runtime_version {{ major: 13 }}
device_description_str: "{name}"
"""


def _hopper(name: str, bandwidth: int, memory: int) -> Chip:
    card = _CARD.format(name=name, bandwidth=bandwidth, memory=memory)
    return Chip("gpu", 1.98e9, 989e12, float(bandwidth), memory, card)


CHIPS: Mapping[str, Mapping[str, Chip]] = {
    "tpu": {
        "v5e": Chip("tpu", 1.5e9, 197e12, 819e9, 16 * GIB, "2x2"),
        "v5p": Chip("tpu", 1.75e9, 459e12, 2765e9, 95 * GIB, "2x2x1"),
        "v6e": Chip("tpu", 1.75e9, 918e12, 1640e9, 32 * GIB, "2x2"),
    },
    "cuda": {
        "h100": _hopper("NVIDIA H100 80GB HBM3", 3_352_320_000_000, 84_978_434_048),
        "h200": _hopper("NVIDIA H200", 4_800_000_000_000, 150_754_820_096),
    },
}
_EXTRAS = {"tpu": "tpu-compiler", "cuda": "cuda-compiler"}


@dataclasses.dataclass(frozen=True)
class Target:
    """Accelerators to compile for.

    Attributes:
        platform: "tpu" or "cuda".
        model: a key of `CHIPS[platform]`.
        topology: "2x2" and the like of TPUs; the number of cards of one host.
    """

    platform: str
    model: str
    topology: str

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read "tpu:v5e:2x2", "tpu:v5e", "cuda:h100" or "cuda:h100:8".

        Raises:
            TargetError: it is none of these.
        """
        platform, _, rest = text.strip().lower().partition(":")
        model, _, topology = rest.partition(":")
        chip = CHIPS.get(platform, {}).get(model)
        if chip is None:
            known = [f"{name}:{model}" for name, chips in CHIPS.items() for model in chips]
            raise TargetError(f"no target {text!r}: known are {', '.join(known)}.")
        if platform == "tpu":
            topology = topology or chip.topology
            if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", topology):
                raise TargetError(
                    f"{text!r}: {topology!r} is no topology; give one such as {chip.topology}, the "
                    "smallest."
                )
        elif not re.fullmatch(r"[1-9]\d?", topology or "1"):
            raise TargetError(f"{text!r}: {topology!r} is no number of cards; give 1 to 99.")
        return cls(platform, model, topology or "1")

    @property
    def chip(self) -> Chip:
        """The accelerator's figures."""
        return CHIPS[self.platform][self.model]

    @property
    def backend(self) -> str:
        """What JAX calls it: "tpu" or "gpu"."""
        return self.chip.backend

    def __str__(self) -> str:
        """As `parse` reads it."""
        return f"{self.platform}:{self.model}:{self.topology}"

    def devices(self) -> list[Any]:
        """The devices to compile for; nothing can be executed on them.

        Raises:
            TargetError: the compiler is not installed, or does not know the topology.
        """
        make = _tpus if self.platform == "tpu" else _cards
        try:
            found: list[Any] = make(self)
        except TargetError:
            raise
        except Exception as error:  # of the compiler, in several kinds
            reason = str(error).strip().split("\n")[0]
            raise TargetError(f"{self}: the compiler refuses it: {reason}") from error
        return found


def _missing(target: Target, what: str) -> TargetError:
    extra = _EXTRAS[target.platform]
    return TargetError(
        f"{target}: its compiler is not installed ({what}): pip install 'qdgs-jax[{extra}]'."
    )


def _tpus(target: Target) -> list[Any]:
    found = importlib.util.find_spec("libtpu")
    library = Path(found.origin).with_name("libtpu.so") if found and found.origin else None
    if "TPU_LIBRARY_PATH" not in os.environ:
        if library is None or not library.is_file():
            raise _missing(target, "libtpu")
        os.environ["TPU_LIBRARY_PATH"] = str(library)
    # What libtpu would ask the machine that it believes to run on.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    name = f"{target.model}:{target.topology}"
    return list(topologies.get_topology_desc(name, platform="tpu").devices)


def _cards(target: Target) -> list[Any]:
    """Described cards; JAX has no public way to describe one to the CUDA plugin."""
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        raise _missing(target, "jax-cuda13-plugin")
    import jaxlib.xla_client as client
    from jax._src import xla_bridge
    from jax.experimental.topologies import TopologyDescription

    xla_bridge._discover_and_register_pjrt_plugins()  # type: ignore[no-untyped-call]
    try:
        client.initialize_pjrt_plugin("cuda")
    except Exception as error:  # a second call in one process
        if "already" not in str(error).lower():
            raise
    options = {"topology": f"1x1x{target.topology}", "target_config": target.chip.topology}
    native: Any = client._xla
    made = native.get_default_c_api_topology("cuda", "", options)
    return list(TopologyDescription(made._make_compile_only_devices()).devices)
