"""Checkpoints of known weights in the formats that published ones come in, written without PyTorch.

The weights come from a manifest (`synthetic`), the bytes from `torch_writer`. The layouts are those
of NVIDIA's stylegan2-ada-pytorch and stylegan3, rosinality's stylegan2-pytorch, OpenAI's CLIP,
Hugging Face transformers, OpenCLIP, and AdaFace under PyTorch Lightning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch_writer as tw
from flax import nnx
from synthetic import Array, Manifest, draw, load_manifest, weights
from torch_writer import Call, Name, Parameter

from qdgs_jax.ports.conversion import recognise
from qdgs_jax.ports.mapping import parameter_shapes, plan_rules
from qdgs_jax.ports.params import flatten
from qdgs_jax.ports.source import open_content

SOURCE = "import pathlib\npathlib.Path('executed').touch()\nraise RuntimeError('executed')\n"
_PERSISTENT = Name("torch_utils.persistence", "_reconstruct_persistent_obj")
_EASY_DICT = Name("dnnlib.util", "EasyDict")
_BUFFERS = ("resample_filter", "noise_const", "w_avg")
SAFETENSORS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}


def stored(manifest: Manifest) -> dict[str, Array]:
    """The weights in the precision that the original file stores."""
    return {
        tensor["name"]: draw(manifest, tensor).astype(tensor["dtype"])
        for tensor in manifest["tensors"]
    }


def _numpy_scalar(value: float) -> Call:
    dtype = Call(Name("numpy", "dtype"), ("f8", False, True), (3, "<", None, None, None, -1, -1, 0))
    return Call(Name("numpy.core.multiarray", "scalar"), (dtype, np.float64(value).tobytes()))


def nvidia_pkl(manifest: Manifest, flavour: str = "ada", protocol: int = 3) -> bytes:
    """A pickle of NVIDIA's training loop; G and D hold other numbers than G_ema."""
    arrays = weights(manifest)
    root = {
        "G": nvidia_network(
            {name: np.asarray(array + 1) for name, array in arrays.items()}, manifest, flavour
        ),
        "D": nvidia_network({"b4.out.weight": np.ones((1, 3), np.float32)}, manifest, flavour),
        "G_ema": nvidia_network(arrays, manifest, flavour),
        "training_set_kwargs": {"path": "/data/images.zip", "xflip": True},
        "augment_pipe": None,
    }
    return tw.nested_bytes(root, protocol)


def nvidia_network(arrays: Mapping[str, Array], manifest: Manifest, flavour: str) -> Call:
    """One network of such a pickle: modules within modules, with their attributes."""
    config, options = manifest["config"], manifest["config"]["synthesis_kwargs"]
    top = {key: config[key] for key in ("z_dim", "c_dim", "w_dim", "img_resolution")}
    top |= {"img_channels": config["img_channels"], "num_ws": 8}
    arguments = dict(options)
    if flavour == "ada":
        arguments = {"synthesis_kwargs": Call(_EASY_DICT, (), items=arguments, new=True)}
    top |= {"_init_args": (), "_init_kwargs": arguments}

    def attributes(path: str) -> dict[str, Any]:
        leaf = path.rpartition(".")[2]
        if leaf in ("conv0", "conv1"):
            found = {"activation": "lrelu", "conv_clamp": options["conv_clamp"], "use_noise": True}
            found |= {"act_gain": _numpy_scalar(2**0.5), "padding": 1}
        elif leaf.startswith("fc"):
            found = {"activation": "lrelu", "bias_gain": 0.01, "weight_gain": _numpy_scalar(0.01)}
        elif leaf == "mapping":
            found = {"num_layers": config["mapping_kwargs"]["num_layers"], "w_avg_beta": 0.995}
        elif path and leaf[0] == "b":
            found = {"architecture": "skip", "use_fp16": False, "resolution": int(leaf[1:])}
        else:
            found = {} if path else top
        return {**found, "in_channels": 1} if flavour == "sg3" and path else found

    return _module(arrays, "", attributes)


def _module(
    arrays: Mapping[str, Array], path: str, attributes: Callable[[str], dict[str, Any]]
) -> Call:
    """The tensors below a path as a pickled module, children as modules within it."""
    own = {name: array for name, array in arrays.items() if "." not in name}
    names = dict.fromkeys(name.partition(".")[0] for name in arrays if "." in name)
    children = {
        child: _module(
            {
                n.removeprefix(f"{child}."): a
                for n, a in arrays.items()
                if n.startswith(f"{child}.")
            },
            f"{path}.{child}".lstrip("."),
            attributes,
        )
        for child in names
    }
    parameters = {n: Parameter(a) for n, a in own.items() if n not in _BUFFERS}
    state = {
        "training": False,
        "_parameters": tw.ordered(parameters),
        "_buffers": tw.ordered({n: a for n, a in own.items() if n in _BUFFERS}),
        "_non_persistent_buffers_set": Call(Name("builtins", "set"), ([],)),
        "_backward_hooks": Call(tw.ORDERED_DICT),
        "_modules": tw.ordered(children),
        **attributes(path),
    }
    meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": "Net"}
    return Call(_PERSISTENT, ({**meta, "state": state},))


def rosinality(manifest: Manifest) -> dict[str, Any]:
    """The result of rosinality's convert_weight.py: {"g_ema", "latent_avg"}."""
    arrays = weights(manifest)
    state: dict[str, Array] = {}
    count = 0
    for name, array in arrays.items():
        layer, _, leaf = name.rpartition(".")
        if name.startswith("mapping.fc"):
            state[f"style.{int(layer[10:]) + 1}.{leaf}"] = array
        elif name == "synthesis.b4.const":
            state["input.input"] = array[None]
        elif leaf == "noise_const":
            state[f"noises.noise_{count}"] = array[None, None]
            count += 1
        elif name.startswith("synthesis.") and leaf != "resample_filter":
            key, value = _rosinality_layer(layer, leaf, array)
            state[key] = value
    kernel = arrays["synthesis.b4.resample_filter"] * 4
    for level in range((count - 1) // 2):
        state[f"convs.{2 * level}.conv.blur.kernel"] = kernel
        state[f"to_rgbs.{level}.upsample.kernel"] = kernel
    return {"g_ema": tw.ordered(state, metadata=True), "latent_avg": arrays["mapping.w_avg"]}


def _rosinality_layer(layer: str, leaf: str, array: Array) -> tuple[str, Array]:
    _, block, kind, *affine = layer.split(".")
    level = int(block[1:]).bit_length() - 4  # of b8: 0
    if kind == "torgb":
        target = f"to_rgbs.{level}" if level >= 0 else "to_rgb1"
    else:
        target = f"convs.{2 * level + int(kind[-1])}" if level >= 0 else "conv1"
    if affine:
        return f"{target}.conv.modulation.{leaf}", array
    if leaf == "weight":
        return f"{target}.conv.weight", array[None]
    if leaf == "noise_strength":
        return f"{target}.noise.weight", array.reshape(1)
    if kind == "torgb":
        return f"{target}.bias", array.reshape(1, -1, 1, 1)
    return f"{target}.activate.bias", array


def openai_state(manifest: Manifest) -> dict[str, Array]:
    """OpenAI's state dict, with the three sizes that its files add."""
    config = manifest["config"]
    sizes = (
        ("input_resolution", "image_resolution"),
        ("context_length", "context_length"),
        ("vocab_size", "vocab_size"),
    )
    return {**stored(manifest), **{name: np.asarray(config[key]) for name, key in sizes}}


def torchscript(arrays: Mapping[str, Array]) -> bytes:
    """A TorchScript archive of modules nested as the names say."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, leaf = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array

    def module(node: Mapping[str, Any], name: Name) -> Call:
        inner = Name("__torch__.torch.nn.modules.module", "Module")
        state = {k: module(v, inner) if isinstance(v, dict) else v for k, v in node.items()}
        return Call(name, (), {"training": False, **state}, new=True)

    code = {"code/__torch__.py": SOURCE.encode(), "constants.pkl": b"\x80\x02)."}
    return tw.zip_bytes(module(tree, Name("__torch__", "Root")), code, top="ViT")


def hugging_face(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """OpenAI CLIP tensors under Hugging Face's names."""
    top = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "logit_scale": "logit_scale",
    }
    parts = (
        ("visual.transformer.resblocks", "vision_model.encoder.layers"),
        ("transformer.resblocks", "text_model.encoder.layers"),
        ("visual.ln_pre", "vision_model.pre_layrnorm"),
        ("visual.ln_post", "vision_model.post_layernorm"),
        ("ln_final", "text_model.final_layer_norm"),
        (".ln_", ".layer_norm"),
        ("mlp.c_fc", "mlp.fc1"),
        ("mlp.c_proj", "mlp.fc2"),
        ("attn.out_proj", "self_attn.out_proj"),
    )
    out = {}
    for name, array in arrays.items():
        if name in ("visual.proj", "text_projection"):
            kind = "visual" if "." in name else "text"
            out[f"{kind}_projection.weight"] = np.ascontiguousarray(array.T)
            continue
        target = top.get(name, name)
        for theirs, ours in parts if target == name else ():
            target = target.replace(theirs, ours)
        if ".attn.in_proj_" in target:
            layer, _, leaf = target.partition(".attn.in_proj_")
            for letter, piece in zip("qkv", np.split(array, 3), strict=True):
                out[f"{layer}.self_attn.{letter}_proj.{leaf}"] = piece
        else:
            out[target] = array
    return out


def hugging_face_config(manifest: Manifest) -> dict[str, Any]:
    """The `config.json` beside Hugging Face weights, defaults left out."""
    if manifest["format"] == "hf_clip":
        return {"model_type": "clip", **manifest["config"]}
    config = manifest["config"]
    heads = {"vision": config["vision_width"] // 64, "text": config["transformer_heads"]}
    towers = {f"{name}_config": {"num_attention_heads": heads[name]} for name in heads}
    # 2 is what the published files say; it means the largest id of the text.
    towers["text_config"] |= {"eos_token_id": 2}
    return {"model_type": "clip", **towers}


def safetensors(arrays: Mapping[str, Array]) -> bytes:
    """A safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, array in arrays.items():
        end = at + array.nbytes
        kind = SAFETENSORS[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(a.tobytes() for a in arrays.values())


def write_folder(path: Path, config: Mapping[str, Any], files: Mapping[str, bytes]) -> Path:
    """A folder with a `config.json` and other files."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def lightning(manifest: Manifest, class_keyed: bool = False) -> dict[str, Any]:
    """A PyTorch Lightning checkpoint of AdaFace's training module, optimiser state included."""
    arrays = weights(manifest)
    state = {f"model.{name}": array for name, array in arrays.items()}
    state["head.kernel"] = np.ones((512, 10), np.float32)
    momentum = {0: {"momentum_buffer": np.zeros(3, np.float32)}}
    callbacks = "pytorch_lightning.callbacks.model_checkpoint"
    key = Name(callbacks, "ModelCheckpoint") if class_keyed else "ModelCheckpoint{}"
    milestones = Call(Name("collections", "Counter"), ({12: 1, 20: 1, 24: 1},))
    return {
        "epoch": 24,
        "pytorch-lightning_version": "1.8.6",
        "state_dict": tw.ordered(state, metadata=True),
        "callbacks": {key: {"best_model_score": np.asarray(0.97, np.float32)}},
        "optimizer_states": [{"state": momentum, "param_groups": [{"lr": 0.1, "params": [0]}]}],
        "lr_schedulers": [{"milestones": milestones, "gamma": 0.1}],
        "hyper_parameters": {"arch": manifest["config"]["arch"], "m": 0.4},
    }


def small_adaface() -> dict[str, Any]:
    """IR-18 for images of 16 x 16 and embeddings of 8, which leaves the body's 11 million."""
    manifest = load_manifest("iresnet", "adaface_ir18")
    tensors = []
    for tensor in manifest["tensors"]:
        shape = tensor["shape"]
        if tensor["name"].startswith(("output_layer.3", "output_layer.4")) and shape:
            shape = [8, 512] if len(shape) == 2 else [8]
        tensors.append({**tensor, "shape": shape})
    return {**manifest, "tensors": tensors}


def tiny_stylegan2() -> dict[str, Any]:
    """An 8x8 generator with 3 classes and 5 channels: a manifest of a few kilobytes of weights."""
    manifest = load_manifest("stylegan2", "stylegan2_cond")
    sizes = {64: 5, 128: 10, 10: 3}
    tensors = [
        {**tensor, "shape": [sizes.get(size, size) for size in tensor["shape"]]}
        for tensor in manifest["tensors"]
        if ".b16." not in tensor["name"]
    ]
    options = {"channel_base": 40, "channel_max": 5, "num_fp16_res": 0, "conv_clamp": 256}
    config = {**manifest["config"], "z_dim": 5, "c_dim": 3, "w_dim": 5, "img_resolution": 8}
    return {**manifest, "tensors": tensors, "config": {**config, "synthesis_kwargs": options}}


def without_classes(manifest: Manifest) -> dict[str, Any]:
    """The same generator without its class embedding."""
    z_dim = manifest["config"]["z_dim"]
    tensors = []
    for tensor in manifest["tensors"]:
        if tensor["name"] == "mapping.fc0.weight":
            tensor = {**tensor, "shape": [tensor["shape"][0], z_dim]}
        if ".embed." not in tensor["name"]:
            tensors.append(tensor)
    return {**manifest, "tensors": tensors, "config": {**manifest["config"], "c_dim": 0}}


_KNOWN: dict[str, dict[str, tuple[int, ...]]] = {}


def _shapes(config: str, build: Callable[[], nnx.Module]) -> dict[str, tuple[int, ...]]:
    """Shapes of a model's parameters, traced once per config."""
    if config not in _KNOWN:
        _KNOWN[config] = parameter_shapes(build)
    return _KNOWN[config]


def port(kind: str, source: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Config and parameters, by their paths with dots, of a checkpoint; nothing is written."""
    with open_content(source) as content:
        found = recognise(kind, content)
        shapes = _shapes(json.dumps(found.config), found.build)
        planned = plan_rules(found.tensors, found.rules, found.ignored, shapes)
        return dict(found.config), {name: leaf.make() for name, leaf in flatten(planned.params)}
