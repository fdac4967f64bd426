"""Face recognition that is pretrained on a run's people, and whom it then recognises how well.

The experiment of Chang et al. 2024 (arXiv:2312.14369), section 5.2, on drawn faces;
`qdgs_jax.train.faces.comparison` does the work. It needs people of the run and of its baseline.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from qdgs_jax.datasets.manifest import MANIFEST, PEOPLE, read_manifest, shards_folder
from qdgs_jax.experiments.protocol import (
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
from qdgs_jax.runs.experiment_tables import RecognitionConfig
from qdgs_jax.runs.folder import RunFolder
from qdgs_jax.train.faces.comparison_result import KINDS, NONE, SIZES, SMALL, Comparison
from qdgs_jax.train.faces.fairness import benchmark_row, fairness_row, mean_and_error, skin_row
from qdgs_jax.train.faces.tables import (
    BENCHMARK_TITLE,
    GAIN_TITLE,
    GROUPS_TITLE,
    SKIN_TITLE,
    SeedTable,
    gain_table,
    seed_table,
)

RESULTS = "comparison.json"
NO_SUBJECTS = (
    "has no table [dataset.subjects], so its data sets have no people: add one, as `qdgs init "
    "drawn-faces` has it."
)
PAPER_GAIN = 0.86  # points that QDGS gained over no pretraining on dark faces, in the paper


class Recognition:
    """The experiment of the table [recognition]."""

    name = "recognition"

    def check_file(self, config: RunConfig, place: Path) -> None:
        """Refuse a run file without the table or without people, or with numbers that do not fit.

        Raises:
            ExperimentError: something is missing; the message names it.
        """
        self._check_numbers(config, place)
        if config.dataset.subjects is None:
            raise ExperimentError(f"{place} {NO_SUBJECTS}")

    def _check_numbers(self, config: RunConfig, place: Path) -> None:
        table = _table(config, place)
        if table.people * table.pictures < table.batch_size:
            raise ExperimentError(
                f"{place}: recognition.batch_size = {table.batch_size}, but {table.people} people "
                f"have {table.people * table.pictures} pictures to learn from: give a smaller "
                "batch, or more people or pictures."
            )
        possible = table.test_people * math.comb(table.test_pictures, 2)
        if possible < table.pairs // 2:
            raise ExperimentError(
                f"{place}: recognition.pairs = {table.pairs}, half of them of one person,"
                f" but {table.test_people} people have {possible} pairs of their "
                f"{table.test_pictures} pictures: give fewer pairs, or more of the others."
            )

    def check_pictures(self, config: RunConfig, side: int, place: Path) -> None:
        """Refuse people whose pictures are smaller than what networks see.

        Raises:
            ExperimentError: they are.
        """
        wanted = _table(config, place).side
        if side < wanted:
            raise ExperimentError(
                f"{place}: recognition.side = {wanted}, but people are {side} pixels wide: give at "
                f"most {side}, or larger ones by dataset.subjects.side."
            )

    def check(self, folder: RunFolder) -> None:
        """Refuse a run of another file, without a baseline, or without people in both.

        Raises:
            ExperimentError: something is missing; the message names it.
            ShardError: a data set is damaged.
        """
        config = folder.config()
        self._check_numbers(config, folder.run_file)
        if not folder.baseline.exists:
            raise ExperimentError(
                f"{folder.path} has no baseline to compare with: add it with "
                f"`{folder.resume_command} --baseline`."
            )
        for each in (folder, folder.baseline):
            size = min(read_manifest(people_folder(each, folder)).image_size)
            self.check_pictures(config, size, folder.run_file)

    def data_sets(self, folder: RunFolder) -> dict[str, Path]:
        """The people of a run and of its baseline."""
        places = {"run": folder, "baseline": folder.baseline}
        return {arm: people_folder(each, folder) for arm, each in places.items()}

    def run(self, folder: RunFolder, progress: Progress) -> None:
        """Train and verify networks and write what came of it."""
        from qdgs_jax.train.faces.comparison import compare, load_people

        config = folder.config()
        table = _table(config, folder.run_file)
        people = {
            arm: load_people(place, table.side) for arm, place in self.data_sets(folder).items()
        }
        result = compare(
            table, people, config.seed, lambda share: progress(round(100 * share), 100)
        )
        write_results(folder.path / self.name, result)

    def results(self, folder: RunFolder) -> Comparison | None:
        """Read the results; None if the experiment was not made.

        Raises:
            ValueError: the file is damaged.
        """
        path = folder.path / self.name / RESULTS
        if not path.is_file():
            return None
        try:
            return Comparison.from_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}.") from None

    def tables(self, result: Comparison, names: Mapping[str, str]) -> list[Table]:
        """The paper's two tables, gains over no pretraining, and errors at a common threshold."""
        return [
            Table(each.title, each.header, each.texts()) for each in seed_tables(result).values()
        ]

    def section(self, result: Comparison, names: Mapping[str, str]) -> Section:
        """Tables, and accuracies over the number of latents that were pretrained on."""
        own = [f"{kind} is {names.get(role, role)}" for kind, role in KINDS.items()]
        sizes = [
            f"{size} stands for {result.arms[f'QD{size}'].latents:,} latents "
            f"({result.arms[f'QD{size}'].people:,} people)"
            for size in SIZES
        ]
        words = (
            "Networks were pretrained on generated people with AdaFace, then learnt drawn people "
            "in FFHQ's proportions, and verified pairs of others, as many of each skin tone: "
            f"mean ± standard error of {len(result.arms[NONE].groups)} seeds. "
            f"{', '.join([*own, *sizes])}, in the paper's proportion. DI is dark over light; in "
            "the paper QDGS gained "
            f"{PAPER_GAIN} points on dark faces over no pretraining."
        )
        return Section(
            title="Fairer recognition",
            words=words,
            cards=_cards(result),
            tables=self.tables(result, names),
            lines=[_lines(result, group, names) for group in ("dark", "light")],
        )


def people_folder(each: RunFolder, run: RunFolder) -> Path:
    """The people of a run, or of its baseline: in `people`, else in the data set.

    Args:
        each: whose people.
        run: the run that it belongs to.

    Raises:
        ExperimentError: it has none; the message says how to make some.
    """
    places = [each.path / PEOPLE, each.data]
    for place in places:
        if (shards_folder(place) / MANIFEST).is_file() and (
            "subject" in read_manifest(place).columns
        ):
            return place
    if not each.finished:
        raise ExperimentError(
            f"the search in {each.path} is not finished: continue it with `{run.resume_command}`."
        )
    if each.config().dataset.subjects is None:
        raise ExperimentError(f"{each.run_file} {NO_SUBJECTS}")
    root, out = shlex.quote(str(each.path)), shlex.quote(str(places[0]))
    raise ExperimentError(
        f"{each.path} has no people: no data set with subjects lies in {places[0]} or "
        f"{places[1]}; write one with `qdgs generate {root} --out {out}`."
    )


def seed_tables(result: Comparison) -> dict[str, SeedTable]:
    """All tables by the names of their files; without pairs of groups or of sets, the others."""
    arms = result.arms.items()
    skin = {name: list(map(skin_row, arm.groups)) for name, arm in arms}
    rates = {name: list(map(fairness_row, arm.groups)) for name, arm in arms}
    sets = {name: list(map(benchmark_row, filter(None, arm.sets))) for name, arm in arms}
    tables = {}
    if any(skin.values()):
        tables["skin"] = seed_table(SKIN_TITLE, skin)
        tables["gains"] = gain_table(GAIN_TITLE, skin, NONE)
    if any(sets.values()):
        tables["sets"] = seed_table(BENCHMARK_TITLE, sets)
    if any(rates.values()):
        tables["groups"] = seed_table(GROUPS_TITLE, rates)
    return tables


def write_results(target: Path, result: Comparison) -> None:
    """Write results and tables, as text and CSV; each appears by atomic rename."""
    target.mkdir(exist_ok=True)
    sweep(target)
    for name, table in seed_tables(result).items():
        write_atomically(target / f"{name}.csv", table.to_csv().encode())
        write_atomically(target / f"{name}.txt", table.to_text().encode())
    write_atomically(target / RESULTS, result.to_json().encode())


def _table(config: RunConfig, place: Path) -> RecognitionConfig:
    if config.recognition is None:
        raise ExperimentError(f"{place} has no table [recognition]: add one.")
    return config.recognition


def _cards(result: Comparison) -> list[Card]:
    best = f"QD{SIZES[-1]}"
    cards = []
    for title, column, unit in (
        ("Accuracy on dark faces", "Dark", "\N{NARROW NO-BREAK SPACE}%"),
        ("Disparate impact", "DI", "\N{NARROW NO-BREAK SPACE}%"),
    ):
        shown = {
            name: mean_and_error(skin_row(seed)[column] for seed in arm.groups)[0]
            for name, arm in result.arms.items()
        }
        others = [f"{name}: {shown[name]:.1f}" for name in (NONE, f"Rand{SIZES[-1]}")]
        cards.append(
            Card(f"{title}, pretrained on {best}", f"{shown[best]:.1f}{unit}", "; ".join(others))
        )
    return cards


def _lines(result: Comparison, group: str, names: Mapping[str, str]) -> Lines:
    """Accuracies on a skin group over the latents that were pretrained on, none included."""
    series = []
    for kind, role in KINDS.items():
        arms = [result.arms[name] for name in (NONE, *(f"{kind}{size}" for size in SIZES))]
        found = [mean_and_error(seed[group].accuracy for seed in arm.groups) for arm in arms]
        errors: Sequence[float] | None = [error for _, error in found]
        if any(math.isnan(error) for _, error in found):
            errors = None
        series.append(Series(names.get(role, role), role, [mean for mean, _ in found], errors))
    most = result.arms[f"QD{SIZES[-1]}"].latents
    return Lines(
        f"Pairs of {group} faces",
        "latents pretrained on",
        "accuracy",
        [0.0, round(SMALL * most), most],
        series,
    )
