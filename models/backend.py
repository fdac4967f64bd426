"""Which kind of device a function is traced for, where the fastest way differs between kinds.

It is the device that JAX would run it on, unless it is being compiled for another one: on a machine
that has only processors a program can be lowered for an accelerator. JAX's own setting of the
default device says which; it is part of the key that traces are kept by, so what was traced for one
kind is never taken for another.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import jax

LANES = 128  # channels that a TPU's matrix unit multiplies, and its registers hold, at a time


def target_backend() -> str:
    """The kind of device that functions are traced for at present: "cpu", "gpu" or "tpu"."""
    device: Any = getattr(jax.config, "jax_default_device", None)
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform


def lowering_for(backend: str) -> AbstractContextManager[Any]:
    """A context in which functions are traced for "cpu", "gpu" or "tpu", to lower them for it.

    Nothing can be executed inside it where there is no such device.
    """
    return jax.default_device(backend)
