"""The card of a data set: a README.md for people and for Hugging Face's Hub and loaders.

It lies in the folder above the shards, which are in `data/` there, as the Hub lays data sets out.
`datasets.load_dataset` takes that folder, with the card's metadata; pandas and pyarrow take `data`,
for they stumble over a README.md, which they take for Parquet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from qdgs_jax.datasets.manifest import DATA, Manifest, ShardError, refuse_other_dataset
from qdgs_jax.files import write_atomically
from qdgs_jax.runs.tables import BASELINE

CARD = "README.md"
FIRST_LINES = "---\n# The card of a data set of qdgs-jax, written with its shards.\n"
_SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
_SIZE_NAMES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M")
_WORDS = {
    "image": "PNG",
    "label": "the class",
    "cell": "the archive's cell that the image is the elite of",
    "objective": "how well the image meets the objective's prompts",
    "measures": "where it lies between the prompts of each measure",
    "latent": "what the generator drew it from",
    "subject": "which person it shows",
    "augmentation": "which latent augmentation shows the person here",
}


def check_place(root: Path) -> None:
    """Refuse a folder that a data set and its card cannot be written to.

    Raises:
        ShardError: it is a file, holds a data set or part of one, or a README.md of somebody else.
    """
    refuse_other_dataset(root)
    refuse_other_dataset(root / DATA)
    file = root / CARD
    if file.exists() and not file.read_bytes().startswith(FIRST_LINES.encode()):
        raise ShardError(f"{file} is no data set's card, and would be lost: give another folder.")


def write_card(root: Path, manifest: Manifest, widths: Mapping[str, int]) -> None:
    """Write the card of the data set in `root / DATA`.

    Args:
        root: the folder above the shards.
        manifest: what they hold.
        widths: length of each column that holds lists.
    """
    write_atomically(root / CARD, card_text(manifest, widths).encode())


def card_text(manifest: Manifest, widths: Mapping[str, int]) -> str:
    """A card: metadata in YAML, then Markdown. See `write_card`."""
    metadata = yaml.safe_dump(
        _metadata(manifest, widths), sort_keys=False, allow_unicode=True, width=1000
    )
    parts = [_introduction(manifest), _classes(manifest), _loading(), _columns(manifest)]
    parts += [_provenance(manifest.source), _limits(manifest)]
    return f"{FIRST_LINES}{metadata}---\n\n" + "\n\n".join(parts) + "\n"


def _metadata(manifest: Manifest, widths: Mapping[str, int]) -> dict[str, Any]:
    size = sum(manifest.count >= limit for limit in _SIZES)
    return {
        "pretty_name": _title(manifest.source),
        "task_categories": ["image-classification"],
        "tags": ["synthetic", "quality-diversity", "qdgs-jax"],
        "size_categories": [_SIZE_NAMES[size]],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": f"{DATA}/*.parquet"}],
            }
        ],
        "dataset_info": {
            "features": [_feature(name, manifest, widths) for name in manifest.columns],
        },
    }


def _feature(name: str, manifest: Manifest, widths: Mapping[str, int]) -> dict[str, Any]:
    if name == "image":
        return {"name": name, "dtype": "image"}
    if name == "label":
        names = {str(number): text for number, text in enumerate(manifest.label_names)}
        return {"name": name, "dtype": {"class_label": {"names": names}}}
    if name in widths:
        return {"name": name, "list": "float32", "length": widths[name]}
    return {"name": name, "dtype": "float32" if name == "objective" else "int32"}


def _title(source: Mapping[str, Any]) -> str:
    return " ".join(str(source[key]) for key in ("run", "algorithm") if key in source) or "images"


def _introduction(manifest: Manifest) -> str:
    height, width = manifest.image_size
    classes = len(manifest.label_names)
    what = (
        f"{manifest.count} generated images of {width} x {height} pixels in {classes} "
        f"class{'' if classes == 1 else 'es'}."
    )
    if manifest.source.get("algorithm") == BASELINE:
        what += (
            " They are what the generator draws by itself, labelled but not balanced: the baseline "
            "that a search is compared with."
        )
    else:
        what += (
            " Quality-Diversity Generative Sampling (Chang et al. 2024, arXiv:2312.14369) searched "
            "the generator's latents for good images of every kind, and the images were chosen "
            "so that classes and bins share them as equally as they can."
        )
    return f"# {_escaped(_title(manifest.source))}\n\n{what}"


def _classes(manifest: Manifest) -> str:
    counted = zip(manifest.label_names, manifest.label_counts, strict=True)
    balance = manifest.balance
    if balance is None:
        return "## Classes\n\n" + _table(
            ("label", "class", "images"), ((i, *row) for i, row in enumerate(counted))
        )
    asked = {group.label: group.asked for group in balance.labels}
    rows = [(i, name, asked.get(name, 0), count) for i, (name, count) in enumerate(counted)]
    uneven = "" if balance.uneven is None else f" Classes differ: {_escaped(balance.uneven)}."
    groups = [(group.label, group.bin, group.asked, group.got) for group in balance.groups]
    return "\n\n".join(
        [
            "## Classes",
            _table(("label", "class", "asked", "images"), rows),
            f"{balance.got} of {balance.asked} images that were asked for. The smallest group of a "
            f"class and a bin has {balance.ratio:.2f} images for each one of the largest, and "
            f"{len(balance.short)} of {len(balance.groups)} groups have fewer than an equal share."
            f"{uneven}",
            _table(("class", "bin", "asked", "images"), groups),
        ]
    )


def _loading() -> str:
    return f"""## How to load it

```python
import datasets
import pandas

images = datasets.load_dataset("FOLDER", split="train")  # this folder, or its name on the Hub
frame = pandas.read_parquet("FOLDER/{DATA}")
```

To put it on the Hub:

```sh
hf upload NAME FOLDER . --repo-type dataset --include {CARD} --include "{DATA}/*"
```"""


def _columns(manifest: Manifest) -> str:
    rows = [
        (name, f"{_WORDS[name]} ({', '.join(manifest.measure_names)})")
        if name == "measures"
        else (name, _WORDS[name])
        for name in manifest.columns
    ]
    return "## Columns\n\n" + _table(("column", "what it is"), rows)


def _provenance(source: Mapping[str, Any]) -> str:
    names = {
        "version": "qdgs-jax",
        "generator": "generator",
        "clip": "judged by CLIP",
        "algorithm": "algorithm",
        "evaluations": "evaluations",
        "seed": "seed",
        "margin": "margin around the classes' boundaries",
        "subjects": "people",
        "latents": "latents of these people",
        "augmentations": "images of each latent",
        "align": "alignment",
    }
    rows = [(words, source[key]) for key, words in names.items() if key in source]
    parts = ["## How it was made", _table(("", ""), rows)]
    prompts = source.get("prompts", ())
    if prompts:
        parts.append(_table(("prompts", "from", "to"), [tuple(prompt) for prompt in prompts]))
    return "\n\n".join(parts)


def _limits(manifest: Manifest) -> str:
    lines = [
        "The images are synthetic. What the generator cannot draw is not in them.",
        "Labels and measures are CLIP's opinion of an image, by the prompts above; no person "
        "looked at them.",
        "No licence is stated here: it follows from those of the generator and of CLIP. State it "
        "as `license:` in the metadata above before you publish the data.",
        *manifest.notes,
    ]
    return "## Limits\n\n" + "\n".join(f"- {_escaped(line)}" for line in lines)


def _table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_escaped(str(cell)) for cell in line)} |" for line in lines)


def _escaped(text: str) -> str:
    """Text of a user as Markdown shows it literally, on one line."""
    shown = " ".join(text.split())
    for sign in "\\|<*_[":
        shown = shown.replace(sign, f"\\{sign}")
    return shown
