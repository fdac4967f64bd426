"""The models that a folder of ours may hold: one table, from which commands and loaders read.

Classes and recognisers are named rather than imported, so that the command line's help need not
import JAX to know the kinds.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from qdgs_jax.ports.errors import CheckpointError

if TYPE_CHECKING:
    from qdgs_jax.ports.source import Content, Source

STATISTICS = "latent_statistics"  # of a generator, in its config.json: how its latents spread


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of model.

    Attributes:
        name: as it stands in `config.json` and on the command line.
        config_name: the config class, a frozen dataclass, as "module:class".
        model_name: the network's class, built as `model(config, rngs=...)`.
        recogniser_name: the function that recognises it in a foreign checkpoint; None for models
            that only our own training writes.
        described: further keys that its config may have, which say what it was trained for, or how
            it behaves.
        later: settings that folders of earlier versions of this program lack.
    """

    name: str
    config_name: str
    model_name: str
    recogniser_name: str | None
    described: tuple[str, ...] = ()
    later: frozenset[str] = frozenset()

    @property
    def model(self) -> type[Any]:
        """The network's class."""
        found: type[Any] = _named(self.model_name)
        return found

    @property
    def recognise(self) -> Callable[[Content], Source]:
        """The recogniser.

        Raises:
            CheckpointError: if there is none.
        """
        if self.recogniser_name is None:
            raise CheckpointError(
                f"A {self.name} is trained here, not converted: give one of {', '.join(PORTED)}."
            )
        found: Callable[[Content], Source] = _named(self.recogniser_name)
        return found

    def read_config(self, fields: Mapping[str, Any]) -> Any:
        """Make the config of the fields of a `config.json`; what only describes is passed over.

        Raises:
            ValueError: if a setting is unknown, missing or has a value that is not possible.
        """
        from qdgs_jax.models.settings import read_settings

        settings = {key: value for key, value in fields.items() if key not in self.described}
        return read_settings(_named(self.config_name), settings)


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "stylegan2",
            "qdgs_jax.models.stylegan2:StyleGAN2Config",
            "qdgs_jax.models.stylegan2:Generator",
            "qdgs_jax.ports.families.stylegan2:recognise",
            (STATISTICS,),
        ),
        Kind(
            "clip",
            "qdgs_jax.models.clip:CLIPConfig",
            "qdgs_jax.models.clip:CLIP",
            "qdgs_jax.ports.families.clip:recognise",
        ),
        Kind(
            "adaface",
            "qdgs_jax.models.iresnet:IResNetConfig",
            "qdgs_jax.models.iresnet:IResNet",
            "qdgs_jax.ports.families.adaface:recognise",
            later=frozenset({"widths", "dropout"}),
        ),
        Kind(
            "vae",
            "qdgs_jax.models.vae:VAEConfig",
            "qdgs_jax.models.vae:VAE",
            "qdgs_jax.ports.families.vae:recognise",
        ),
        Kind(
            "latents",
            "qdgs_jax.models.latents:LatentsConfig",
            "qdgs_jax.models.latents:Latents",
            "qdgs_jax.ports.families.latents:recognise",
        ),
        Kind(
            "shape_classifier",
            "qdgs_jax.models.shape_classifier:ShapeClassifierConfig",
            "qdgs_jax.models.shape_classifier:ShapeClassifier",
            None,
            ("label_names",),
        ),
        Kind(
            "face_regressor",
            "qdgs_jax.models.face_regressor:FaceRegressorConfig",
            "qdgs_jax.models.face_regressor:FaceRegressor",
            None,
        ),
    )
}
PORTED = tuple(name for name, kind in KINDS.items() if kind.recogniser_name is not None)


def find_kind(name: str) -> Kind:
    """Look up a kind by its name.

    Raises:
        CheckpointError: if there is none of this name.
    """
    if name not in KINDS:
        raise CheckpointError(f"There is no model {name!r}: give one of {', '.join(PORTED)}.")
    return KINDS[name]


def kind_of(model: type) -> Kind:
    """Look up a kind by the network's class.

    Raises:
        ValueError: if folders hold no models of this class.
    """
    for kind in KINDS.values():
        if kind.model is model:
            return kind
    known = [kind.model_name.partition(":")[2] for kind in KINDS.values()]
    raise ValueError(f"model is {model}: give one of {known}.")


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
