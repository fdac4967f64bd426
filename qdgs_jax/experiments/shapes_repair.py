"""Repair of colour-biased shape classifiers with a run's data sets, judged by an oracle.

The experiment of Chang et al. 2024 (arXiv:2312.14369), section 5.1; `qdgs_jax.train.shapes` does
the work. It draws red and blue triangles and squares itself, so it can only be made with data sets
whose classes are triangle and square, in this order, of a search over red and blue.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from qdgs_jax.datasets.labels import label_rule, prompt_text
from qdgs_jax.datasets.manifest import MANIFEST, Manifest, read_manifest
from qdgs_jax.experiments.protocol import (
    Bars,
    Card,
    ExperimentError,
    Lines,
    Progress,
    Section,
    Series,
    Table,
)
from qdgs_jax.files import sweep, write_atomically
from qdgs_jax.runs.config import RunConfig
from qdgs_jax.runs.folder import RunFolder
from qdgs_jax.train.shapes.repair_result import ARMS, GROUPS, RepairResult

NO_REPAIR = "no repair"
CLASSES = ("triangle", "square")
COLOURS = ("red", "blue")


@dataclasses.dataclass(frozen=True)
class Groups:
    """What the oracle sees in the data sets.

    Attributes:
        shares: for each arm ("run", "baseline"), the share of its images in each group.
        oracle_accuracy: share of the oracle's right answers on drawings it has not seen.
        label_agreement: for each arm, the share of images whose label the oracle confirms.
    """

    shares: Mapping[str, Mapping[str, float]]
    oracle_accuracy: float
    label_agreement: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class ShapesRepairResult:
    """Accuracies of the classifiers, and what is in the data sets."""

    accuracy: RepairResult
    groups: Groups


class ShapesRepair:
    """The experiment of the table [repair]."""

    name = "repair"

    def check_file(self, config: RunConfig, place: Path) -> None:
        """Refuse a run file without the table, the colours or the classes.

        Raises:
            ExperimentError: something is missing; the message names it.
        """
        if config.repair is None:
            raise ExperimentError(f"{place} has no table [repair]: add one.")
        if not any(
            names_in_order((prompt_text(m.positive), prompt_text(m.negative)), COLOURS)
            for m in config.measures
        ):
            measures = "; ".join(
                f"{m.name}: {prompt_text(m.positive)!r} to {prompt_text(m.negative)!r}"
                for m in config.measures
            )
            raise ExperimentError(
                f"[repair] needs a measure from red to blue, in this order, but {place} "
                f"has {measures}: its classifiers are biased by red and blue, and no other colours "
                "repair them."
            )
        _check_classes(label_rule(config).names, place)

    def check_pictures(self, config: RunConfig, side: int, place: Path) -> None:
        """Refuse images that are smaller than what the classifiers see.

        Raises:
            ExperimentError: they are.
        """
        if config.repair is not None and side < config.repair.image_size:
            raise ExperimentError(
                f"{place}: repair.image_size = {config.repair.image_size}, but images are {side} "
                f"pixels wide: give at most {side}."
            )

    def check(self, folder: RunFolder) -> None:
        """Refuse a run of another file, without a baseline or without data sets.

        What takes another run to mend comes before what another command adds.

        Raises:
            ExperimentError: something is missing; the message names it.
            ShardError: a data set is damaged.
        """
        self.check_file(folder.config(), folder.run_file)
        if not folder.baseline.exists:
            raise ExperimentError(
                f"{folder.path} has no baseline to compare with: add it with "
                f"`{folder.resume_command} --baseline`, or give the folder of one data set, such "
                f"as {folder.data}, to learn that alone."
            )
        for each in (folder, folder.baseline):
            size = min(_manifest_of(each, folder).image_size)
            self.check_pictures(folder.config(), size, folder.run_file)

    def data_sets(self, folder: RunFolder) -> dict[str, Path]:
        """The data sets of a run and of its baseline."""
        return {"run": folder.data, "baseline": folder.baseline.data}

    def run(self, folder: RunFolder, progress: Progress) -> None:
        """Repair biased classifiers with a run's data sets and write what came of it."""
        from qdgs_jax.train.shapes.oracle import judge_dataset, train_oracle
        from qdgs_jax.train.shapes.repair import run_repair

        config = folder.config()
        if config.repair is None:
            raise ExperimentError(f"{folder.run_file} has no table [repair]: add one.")
        data = self.data_sets(folder)
        oracle = train_oracle(config.seed, image_size=config.repair.image_size)
        judged = {arm: judge_dataset(path, oracle) for arm, path in data.items()}
        groups = Groups(
            shares={arm: judgement.shares() for arm, judgement in judged.items()},
            oracle_accuracy=oracle.accuracy,
            label_agreement={arm: judgement.label_agreement() for arm, judgement in judged.items()},
        )
        result = run_repair(
            data["run"],
            data["baseline"],
            config.repair,
            config.seed,
            lambda what, share: progress(round(100 * share), 100),
        )
        target = folder.path / self.name
        target.mkdir(exist_ok=True)
        sweep(target)
        text = json.dumps(dataclasses.asdict(groups), indent=2) + "\n"
        write_atomically(target / "groups.json", text.encode())
        write_atomically(target / "accuracy.json", result.to_json().encode())

    def results(self, folder: RunFolder) -> ShapesRepairResult | None:
        """Read the results; None if the experiment was not made.

        Raises:
            ValueError: a file is damaged.
        """
        target = folder.path / self.name
        if not (target / "accuracy.json").is_file():
            return None
        accuracy = RepairResult.from_json((target / "accuracy.json").read_text(encoding="utf-8"))
        return ShapesRepairResult(accuracy, _read_groups(target / "groups.json"))

    def tables(self, result: ShapesRepairResult, names: Mapping[str, str]) -> list[Table]:
        """Accuracies and groups."""
        return [_accuracy_table(result.accuracy, names), _groups_table(result.groups, names)]

    def section(self, result: ShapesRepairResult, names: Mapping[str, str]) -> Section:
        """Accuracies over the bias, before and after repair; groups by the oracle."""
        accuracy, groups = result.accuracy, result.groups
        worst = int(np.argmax(accuracy.biases))
        own = {name: groups.shares["run"][name] for name in GROUPS}
        rarest = min(own, key=lambda name: own[name])
        baseline = min(groups.shares["baseline"][name] for name in GROUPS)
        unclear = ", ".join(
            f"{_percent(shares['unclear'])} of {names[arm]}"
            for arm, shares in groups.shares.items()
        )
        words = (
            "Balanced accuracy on drawn test images of classifiers that tell triangles from "
            "squares. They learnt from drawings whose colour mostly followed their shape, and were "
            "then fine-tuned on a generated data set: mean ± standard error of "
            f"{accuracy.accuracy['none'].shape[1]} classifiers, in per cent."
        )
        shares = [
            Series(names[arm], arm, [seen[name] for name in GROUPS])
            for arm, seen in groups.shares.items()
        ]
        judged = (
            f"Judged by an oracle that does not use CLIP and is right on "
            f"{_percent(groups.oracle_accuracy)} of drawings; in no group: {unclear}."
        )
        return Section(
            title="Repaired classifiers",
            words=words,
            cards=[
                Card(
                    f"Balanced accuracy at bias {accuracy.biases[worst]:g}",
                    _percent(accuracy.mean("run")[worst]),
                    f"before: {_percent(accuracy.mean('none')[worst])}",
                ),
                Card(
                    "Rarest group of the data set",
                    _percent(own[rarest]),
                    f"{rarest}, as the oracle sees it; {names['baseline']}: {_percent(baseline)}",
                ),
            ],
            tables=[_accuracy_table(accuracy, names)],
            lines=[_accuracy_lines(accuracy, names)],
            bars=[Bars("Groups of the data sets", GROUPS, shares, judged)],
        )


def names_in_order(texts: Sequence[str], words: Sequence[str]) -> bool:
    """Whether each text names its own word and none of the others."""
    found = [set(re.findall(r"[a-z]+", text.lower())) for text in texts]
    named = [{word for word in words if {word, word + "s"} & letters} for letters in found]
    return named == [{word} for word in words]


def _manifest_of(each: RunFolder, run: RunFolder) -> Manifest:
    """The data set of a run, or of its baseline; refuses none, and one of other classes."""
    if not (each.data / MANIFEST).is_file():
        if not each.finished:
            raise ExperimentError(
                f"the search in {each.path} is not finished: continue it with "
                f"`{run.resume_command}`."
            )
        command = f"qdgs generate {shlex.quote(str(run.path))}"
        raise ExperimentError(f"{each.data} holds no data set: write it with `{command}`.")
    manifest = read_manifest(each.data)
    _check_classes(manifest.label_names, each.data)
    return manifest


def _check_classes(names: Sequence[str], place: Path) -> None:
    if not names_in_order(names, CLASSES):
        raise ExperimentError(
            "[repair] needs a data set whose classes are triangle and square in this order, but "
            f"those of {place} are {', '.join(map(repr, names))}: let the label be a measure whose "
            "positive prompt says triangle and whose negative one says square. A classifier of any "
            "classes is trained by `qdgs train` with the folder of a data set."
        )


def _read_groups(path: Path) -> Groups:
    try:
        groups = Groups(**json.loads(path.read_text(encoding="utf-8")))
        for arm in ARMS[1:]:
            if set(groups.shares[arm]) != {*GROUPS, "unclear"}:
                raise ValueError(f"the groups of {arm} are {sorted(groups.shares[arm])}")
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise ValueError(f"{path} is not what the oracle saw: {error}.") from None
    return groups


def _titles(names: Mapping[str, str]) -> list[str]:
    return [{"none": NO_REPAIR, **names}[arm] for arm in ARMS]


def _accuracy_table(result: RepairResult, names: Mapping[str, str]) -> Table:
    header = ["bias", *_titles(names), "gain"]
    title = "Balanced accuracy, % (mean ± standard error)"
    return Table(title, header, result.table_rows())


def _groups_table(groups: Groups, names: Mapping[str, str]) -> Table:
    shares = groups.shares
    rows = [
        [name, *(f"{100 * seen[name]:.1f}" for seen in shares.values())]
        for name in (*GROUPS, "unclear")
    ]
    title = "Share of each group, % (by the oracle)"
    return Table(title, ["group", *(names[arm] for arm in shares)], rows)


def _accuracy_lines(result: RepairResult, names: Mapping[str, str]) -> Lines:
    order = np.argsort(result.biases)
    series = []
    for arm, title in zip(ARMS, _titles(names), strict=True):
        errors = result.standard_error(arm)[order]
        known = None if any(map(math.isnan, errors)) else errors.tolist()
        series.append(Series(title, arm, result.mean(arm)[order].tolist(), known))
    at = np.asarray(result.biases)[order].tolist()
    return Lines("", "colour bias of the training set", "balanced accuracy", at, series)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\N{NARROW NO-BREAK SPACE}%"
