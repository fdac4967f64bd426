"""A finished run folder is an object that knows its elites and draws them."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from run_text import RUN

from qdgs_jax import load_run
from qdgs_jax.domains import registry
from qdgs_jax.domains.external import make_generator
from qdgs_jax.elites import Elites
from qdgs_jax.runs.config import baseline_of, parse_run
from qdgs_jax.runs.folder import COLUMNS, RunFolder, RunFolderError

GENERATOR = """
import jax, jax.numpy as jnp

class Grey:
    latent_dim = 3
    params = {"scale": jnp.ones(())}

    def decode(self, params, latents):
        grey = jax.nn.sigmoid(params["scale"] * latents[:, 0])
        return jnp.broadcast_to(grey[:, None, None, None], (len(latents), 4, 6, 3))

    def sample(self, params, key, count):
        return jax.random.normal(key, (count, 3))

def make():
    return Grey()
"""
LATENTS = np.asarray([(0, 1, 2), (9, 1, 2), (-9, 1, 2)], np.float32)
ROW = dict.fromkeys(COLUMNS, 1)


def write_elites(folder, config, latents):
    """Elites along the diagonal of the grid, of objectives 50, 51, ..."""
    count = len(latents)
    objectives = np.arange(50, 50 + count, dtype=np.float32)
    settings = {"kind": "GridArchive", **config.grid, "learning_rate": 1.0}
    Elites(
        cells=np.arange(count) * (config.dims[1] + 1),
        objectives=objectives,
        thresholds=objectives,
        measures=np.float32([[-0.098 + 0.004 * row] * 2 for row in range(count)]),
        latents=latents,
        settings={**settings, "threshold_min": -np.inf},
    ).to_parquet(folder.archive_file)


def write_run(folder, config, latents):
    folder.create(config)
    write_elites(folder, config, latents)
    folder.append_metrics(ROW)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run with a baseline, whose generator lies in a module beside it."""
    place = tmp_path_factory.mktemp("finished")
    (place / "grey_pictures.py").write_text(GENERATOR)
    external = f'kind = "external"\ngenerator = "grey_pictures:make"\nfolder = "{place}"'
    text = RUN.replace('kind = "shapes"\ngenerator = "embedded:shapes-vae"', external)
    config = parse_run(text)
    folder = RunFolder(place / "run")
    write_run(folder, config, LATENTS)
    write_run(folder.baseline, baseline_of(config), LATENTS[:2])
    yield folder
    sys.modules.pop("grey_pictures", None)


@pytest.fixture
def run(made):
    return load_run(made.path)


@pytest.fixture
def without_clip(monkeypatch):
    """The run's own generator, without a CLIP, which takes long to load."""

    def load(config):
        grey = make_generator(config.domain.generator, {}, Path(config.domain.folder))
        pictures = jax.jit(lambda params, z: jnp.uint8(jnp.round(255 * grey.decode(params, z))))
        return SimpleNamespace(latent_dim=3, params=grey.params, pictures=pictures)

    monkeypatch.setitem(registry.DOMAINS, "external", load)


@pytest.fixture
def copy(made, tmp_path):
    """The same files, to be damaged."""
    return RunFolder(shutil.copytree(made.path, tmp_path / "copy"))


def test_what_is_no_path_is_refused():
    with pytest.raises(ValueError, match="path is None: give the folder"):
        load_run(None)


def test_what_was_found_and_how(run, made):
    assert run.config == made.config()
    np.testing.assert_array_equal(run.elites.latents, LATENTS)
    assert float(run.archive.best) == 52.0
    pd.testing.assert_frame_equal(run.metrics, pd.DataFrame(made.read_metrics()))
    assert list(run.metrics.columns) == list(COLUMNS)
    assert run.provenance is None
    assert repr(run) == f"FinishedRun({str(made.path)!r}, cma_maega)"
    assert "domain" not in vars(run)  # reading loads no weights


@pytest.mark.full
def test_a_generator_of_ones_own_is_loaded_with_its_clip(run):
    assert run.images()[:, 0, 0, 0].tolist() == [128, 255, 0]
    assert run.domain.params.targets is not None


@pytest.mark.usefixtures("without_clip")
def test_elites_are_drawn(run):
    images = run.images()
    assert images.shape == (3, 4, 6, 3) and images.dtype == np.uint8
    assert images[:, 0, 0, 0].tolist() == [128, 255, 0]
    np.testing.assert_array_equal(run.images([2, 0]), images[[2, 0]])
    np.testing.assert_array_equal(run.images(-1), images[2])
    np.testing.assert_array_equal(run.images(run.elites.objectives > 50.5), images[1:])
    assert run.images([]).shape == (0, 4, 6, 3)
    np.testing.assert_array_equal(run.decode(jnp.zeros((60, 3))), np.full((60, 4, 6, 3), 128))


@pytest.mark.usefixtures("without_clip")
def test_a_baseline_is_a_run_too(run, made):
    assert len(run.baseline.elites) == 2
    assert run.baseline.config.search.algorithm == "random"
    assert run.baseline.domain is run.domain
    assert len(load_run(made.baseline.path).elites) == 2
    assert run.baseline.baseline is None


@pytest.mark.usefixtures("without_clip")
@pytest.mark.parametrize(
    ("attempt", "error"),
    [
        (lambda run: run.decode(np.zeros((2, 4))), r"shape \(2, 4\): give \[B, 3\]"),
        (lambda run: run.decode(np.zeros(3)), r"shape \(3,\): give \[B, 3\]"),
        (lambda run: run.decode("abc"), r"latents is 'abc': give numbers"),
        (lambda run: run.images([3]), r"indices is \[3\], but the run has 3 elites"),
        (lambda run: run.images([0.5]), r"indices is \[0.5\], but the run has 3 elites"),
    ],
)
def test_what_cannot_be_drawn_is_named(run, attempt, error):
    with pytest.raises((ValueError, IndexError), match=error):
        attempt(run)


def test_a_folder_that_is_no_finished_run_is_named(copy, tmp_path):
    with pytest.raises(RunFolderError, match=r"nothing does not exist: give the folder"):
        load_run(tmp_path / "nothing")
    with pytest.raises(RunFolderError, match=r"run\.toml is a file: give the folder"):
        load_run(copy.run_file)
    with pytest.raises(RunFolderError, match="holds no run"):
        load_run(tmp_path)
    copy.baseline.archive_file.unlink()
    with pytest.raises(RunFolderError, match=r"search in .*random is not finished"):
        _ = load_run(copy.path).baseline
    copy.archive_file.unlink()
    with pytest.raises(RunFolderError, match=r"not finished: continue it with `qdgs search"):
        load_run(copy.path)


@pytest.mark.usefixtures("without_clip")
def test_elites_of_another_generator_are_refused(copy):
    write_elites(copy, copy.config(), np.zeros((1, 5), np.float32))
    with pytest.raises(ValueError, match=r"length 5 but the generator of .* takes 3"):
        load_run(copy.path).images()
