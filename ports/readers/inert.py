"""Names of data that stands beside the weights: paths, devices, arrays, dates, configurations.

Training programs keep their settings in checkpoints. Those need not be understood to be passed
over: a name of this list stands for `Opaque`, which takes whatever arguments, items and state the
file gives it and drops them, or may be mentioned and not called. Nothing is imported or computed.
"""

from __future__ import annotations

from qdgs_jax.ports.readers.values import Global, Opaque

_CLASSES = {  # modules, and classes whose objects are dropped
    ("pathlib", "pathlib._local"): (
        "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath"
    ),
    ("datetime",): "date datetime time timedelta timezone",
    ("decimal", "_decimal"): "Decimal",
    ("fractions",): "Fraction",
    ("uuid",): "UUID",
    ("types",): "SimpleNamespace",
    ("builtins", "__builtin__"): "bytearray complex range slice xrange",
    ("collections",): "defaultdict",
    ("functools",): "partial",
    ("ipaddress",): "IPv4Address IPv6Address",
    ("torch",): "device",
    ("torch.torch_version",): "TorchVersion",
    ("torch.serialization",): "_get_layout",
    ("numpy.core.multiarray", "numpy._core.multiarray"): "_reconstruct",
    ("numpy.core.numeric", "numpy._core.numeric"): "_frombuffer",
    ("numpy.random._pickle",): "__randomstate_ctor __generator_ctor __bit_generator_ctor",
    ("easydict",): "EasyDict",
    ("addict.addict",): "Dict",
    ("yacs.config",): "CfgNode",
    ("ml_collections.config_dict.config_dict",): "ConfigDict FrozenConfigDict",
}
_MENTIONED = {  # modules, and names that may stand for themselves
    (
        "builtins",
        "__builtin__",
    ): "bool dict float int list object str tuple",
    ("typing",): "Any",
    ("numpy",): "ndarray",
    ("numpy.random._mt19937",): "MT19937",
    ("numpy.random._pcg64",): "PCG64 PCG64DXSM",
    ("torch",): (
        "Tensor strided sparse_coo contiguous_format preserve_format channels_last "
        "channels_last_3d complex64 complex128 uint16 uint32 uint64 float8_e4m3fn float8_e5m2"
    ),
    ("torch.nn.parameter",): "Parameter Buffer",
}
_DROPPED = ("omegaconf.",)  # packages whose classes are all data
_NAMED = (  # packages whose classes may stand for themselves, as keys or settings
    "pytorch_lightning.callbacks.",
    "lightning.pytorch.callbacks.",
    "torch.optim.",
)


def inert_names() -> dict[tuple[str, str], Global]:
    """List the names, by module and name."""
    table: dict[tuple[str, str], Global] = {}
    for modules, names in _MENTIONED.items():
        for module in modules:
            table |= {(module, name): Global(f"{module}.{name}") for name in names.split()}
    for modules, names in _CLASSES.items():
        for module in modules:
            table |= {(module, name): opaque(f"{module}.{name}") for name in names.split()}
    return table


def inert_package(module: str, name: str) -> Global | None:
    """Look up a name of a package that holds data alone; None if it is of another one."""
    if module.startswith(_DROPPED):
        return opaque(f"{module}.{name}")
    if module.startswith(_NAMED):
        return Global(f"{module}.{name}")
    return None


def opaque(name: str) -> Global:
    """Make the name of a class whose objects are dropped."""
    return Global(name, lambda arguments: Opaque(name))
