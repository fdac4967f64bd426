"""Names of AdaFace's IR and IR-SE backbones' tensors, without the `model.` of Lightning's files.

PyTorch flattens the last feature map channel first, our network channel last, so the kernel of the
dense layer behind it is permuted. Tables are for `mapping.plan_rules`.
"""

from __future__ import annotations

from qdgs_jax.models.iresnet import WIDTHS, IResNetConfig
from qdgs_jax.ports.mapping import Regroup, Rule

IGNORED = (r".*\.num_batches_tracked",)

_HWIO = (2, 3, 1, 0)
_NORMS = (
    (r"input_layer\.1", "input.norm"),
    (r"body\.(\d+)\.res_layer\.0", r"body.unit\1.norm1"),
    (r"body\.(\d+)\.res_layer\.2", r"body.unit\1.norm2"),
    (r"body\.(\d+)\.res_layer\.5", r"body.unit\1.norm3"),
    (r"body\.(\d+)\.shortcut_layer\.1", r"body.unit\1.shortcut.norm"),
    (r"output_layer\.0", "output.norm"),
    (r"output_layer\.4", "output.embedding_norm"),
)
_FIELDS = (("weight", "scale"), ("bias", "bias"), ("running_mean", "mean"), ("running_var", "var"))


def rules(cfg: IResNetConfig) -> tuple[Rule, ...]:
    """List the rules for a backbone of this shape."""
    side = cfg.input_size // 16
    dense = Regroup(
        (cfg.embed_dim, WIDTHS[-1] * side * side),
        (cfg.embed_dim, WIDTHS[-1], side, side),
        _HWIO,
    )
    kernels: tuple[Rule, ...] = (
        (r"input_layer\.0\.weight", "input.conv.kernel", _HWIO),
        (r"input_layer\.2\.weight", "input.prelu.slope", None),
        (r"body\.(\d+)\.res_layer\.1\.weight", r"body.unit\1.conv1.kernel", _HWIO),
        (r"body\.(\d+)\.res_layer\.3\.weight", r"body.unit\1.prelu.slope", None),
        (r"body\.(\d+)\.res_layer\.4\.weight", r"body.unit\1.conv2.kernel", _HWIO),
        (r"body\.(\d+)\.res_layer\.se_block\.fc1\.weight", r"body.unit\1.se.squeeze.kernel", _HWIO),
        (r"body\.(\d+)\.res_layer\.se_block\.fc2\.weight", r"body.unit\1.se.excite.kernel", _HWIO),
        (r"body\.(\d+)\.shortcut_layer\.0\.weight", r"body.unit\1.shortcut.conv.kernel", _HWIO),
        (r"output_layer\.3\.weight", "output.dense.kernel", dense),
        (r"output_layer\.3\.bias", "output.dense.bias", None),
    )
    norms: tuple[Rule, ...] = tuple(
        (rf"{source}\.{theirs}", f"{target}.{ours}", None)
        for source, target in _NORMS
        for theirs, ours in _FIELDS
    )
    return kernels + norms
