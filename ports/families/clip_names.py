"""Names of CLIP's tensors: OpenAI's, which OpenCLIP shares, and Hugging Face's.

OpenAI packs query, key and value into one matrix, as our model does; Hugging Face keeps them apart.
Tables are for `mapping.plan_rules`.
"""

from __future__ import annotations

from qdgs_jax.models.clip import CLIPConfig
from qdgs_jax.ports.mapping import Regroup, Rule

_BIAS = "logit_bias"  # of training in SigLIP's manner
OPENAI_IGNORED = (r"input_resolution|context_length|vocab_size", r"attn_mask", _BIAS)
HUGGING_FACE_IGNORED = (r"(text|vision)_model\.embeddings\.position_ids", _BIAS)

_LEAVES = (("weight", "scale"), ("bias", "bias"))  # of a layer norm


def openai_rules(cfg: CLIPConfig, scale: tuple[int, ...] = ()) -> tuple[Rule, ...]:
    """List the rules for OpenAI's names; `scale` is the shape that `logit_scale` has."""
    rules: list[Rule] = [
        (r"logit_scale", "logit_scale", Regroup((1,) * len(scale), (), ())),
        (r"token_embedding\.weight", "text.token", None),
        (r"positional_embedding", "text.position", None),
        (r"text_projection", "text.projection.kernel", None),
        (r"visual\.class_embedding", "visual.class_token", None),
        (r"visual\.positional_embedding", "visual.position", None),
        (r"visual\.conv1\.weight", "visual.patch.kernel", _patches(cfg)),
        (r"visual\.proj", "visual.projection.kernel", None),
        *_norm(r"visual\.(ln_pre|ln_post)", r"visual.\1"),
        *_norm(r"ln_final", "text.ln_final"),
    ]
    for source, target in ((r"visual\.", "visual"), ("", "text")):
        theirs, ours = rf"{source}transformer\.resblocks\.(\d+)\.", rf"{target}.blocks.\1."
        rules += _norm(rf"{theirs}(ln_[12])", rf"{ours}\2")
        rules += [
            (rf"{theirs}attn\.in_proj_weight", f"{ours}attn.qkv.kernel", (1, 0)),
            (rf"{theirs}attn\.in_proj_bias", f"{ours}attn.qkv.bias", None),
            *_dense(rf"{theirs}attn\.out_proj", f"{ours}attn.out"),
            *_dense(rf"{theirs}mlp\.c_fc", f"{ours}fc1"),
            *_dense(rf"{theirs}mlp\.c_proj", f"{ours}fc2"),
        ]
    return tuple(rules)


def hugging_face_rules(cfg: CLIPConfig, scale: tuple[int, ...] = ()) -> tuple[Rule, ...]:
    """List the rules for Hugging Face's names; `scale` is the shape that `logit_scale` has."""
    text, vision = r"text_model\.embeddings\.", r"vision_model\.embeddings\."
    rules: list[Rule] = [
        (r"logit_scale", "logit_scale", Regroup((1,) * len(scale), (), ())),
        (rf"{text}token_embedding\.weight", "text.token", None),
        (rf"{text}position_embedding\.weight", "text.position", None),
        (r"text_projection\.weight", "text.projection.kernel", (1, 0)),
        (rf"{vision}class_embedding", "visual.class_token", None),
        (rf"{vision}position_embedding\.weight", "visual.position", None),
        (rf"{vision}patch_embedding\.weight", "visual.patch.kernel", _patches(cfg)),
        (r"visual_projection\.weight", "visual.projection.kernel", (1, 0)),
        *_norm(r"vision_model\.pre_layrnorm", "visual.ln_pre"),  # spelled like this
        *_norm(r"vision_model\.post_layernorm", "visual.ln_post"),
        *_norm(r"text_model\.final_layer_norm", "text.ln_final"),
    ]
    for source, target in (("vision", "visual"), ("text", "text")):
        theirs, ours = rf"{source}_model\.encoder\.layers\.(\d+)\.", rf"{target}.blocks.\1."
        rules += _norm(rf"{theirs}layer_norm([12])", rf"{ours}ln_\2")
        for part, letter in enumerate("qkv"):
            projection = rf"{theirs}self_attn\.{letter}_proj"
            rules += [
                (rf"{projection}\.weight", f"{ours}attn.qkv.kernel[{part}/3]", (1, 0)),
                (rf"{projection}\.bias", f"{ours}attn.qkv.bias[{part}/3]", None),
            ]
        rules += _dense(rf"{theirs}self_attn\.out_proj", f"{ours}attn.out")
        rules += _dense(rf"{theirs}mlp\.(fc[12])", rf"{ours}\2")
    return tuple(rules)


def _dense(source: str, target: str) -> list[Rule]:
    return [
        (rf"{source}\.weight", f"{target}.kernel", (1, 0)),
        (rf"{source}\.bias", f"{target}.bias", None),
    ]


def _norm(source: str, target: str) -> list[Rule]:
    return [(rf"{source}\.{theirs}", f"{target}.{ours}", None) for theirs, ours in _LEAVES]


def _patches(cfg: CLIPConfig) -> Regroup:
    """Kernel OIHW of the patches' convolution to the matrix [H W I, O]."""
    shape = (cfg.vision.width, 3, cfg.patch_size, cfg.patch_size)
    return Regroup(shape, shape, (2, 3, 1, 0))
