"""A folder with a folder of images for each identity, as CASIA-WebFace is often handed on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from qdgs_jax.ports.faces.damage import Damage, DamageLog, FaceSetError
from qdgs_jax.ports.faces.pair_lists import SUFFIXES
from qdgs_jax.ports.faces.pictures import PictureError, decode_picture


class IdentityFolder:
    """Images of identities; folders and files in the order of their names, numbers by value.

    Args:
        path: the folder; folders in it are identities, counted from 0 in their order.
        skip_corrupt: pass over damaged images; they are told in `damage`.

    Attributes:
        names: of the identities' folders.
        files: paths of the N images.
        identities: Int[N], of each image.

    Raises:
        FaceSetError: there are no images in folders.
    """

    def __init__(self, path: str | os.PathLike[str], *, skip_corrupt: bool = False) -> None:
        self.path = Path(path)
        folders = self._sorted(entry for entry in self._listed() if entry.is_dir())
        found = [
            (file, folder)
            for folder in folders
            for file in self._sorted(folder.iterdir())
            if file.suffix.lower() in SUFFIXES and file.is_file()
        ]
        if not found:
            raise FaceSetError(
                f"{self.path} has no images in folders: give a folder with one for each identity, "
                f"with {', '.join(SUFFIXES)} files."
            )
        used = list(dict.fromkeys(folder for _, folder in found))
        numbers = {folder: number for number, folder in enumerate(used)}
        self.names = tuple(folder.name for folder in used)
        self.files = tuple(file for file, _ in found)
        self.identities = np.array([numbers[folder] for _, folder in found])
        self._log = DamageLog(self.path, skip=skip_corrupt)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def damage(self) -> tuple[Damage, ...]:
        """What was passed over so far."""
        return tuple(self._log.found)

    def pictures(self, start: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """Numbers of images and their pictures UInt8[H, W, 3], all of one size, red first.

        Raises:
            FaceSetError: an image is damaged or has another size, unless such are passed over.
        """
        shape: tuple[int, ...] | None = None
        for number in range(start, len(self)):
            file = self.files[number]
            try:
                picture = decode_picture(file.read_bytes())
                shape = shape or picture.shape
                if picture.shape != shape:
                    raise PictureError(
                        f"the picture has {picture.shape[1]} x {picture.shape[0]} pixels, others "
                        f"{shape[1]} x {shape[0]}"
                    )
            except (PictureError, OSError) as error:
                self._log.add(f"file {file.relative_to(self.path)}", error)
                continue
            yield number, picture

    def _listed(self) -> list[Path]:
        try:
            return list(self.path.iterdir())
        except OSError as error:
            raise FaceSetError(f"{self.path} cannot be read: {error.strerror}.") from None

    @staticmethod
    def _sorted(paths: Iterator[Path]) -> list[Path]:
        """By number where names are numbers, which come first; then by name."""
        return sorted(
            paths, key=lambda p: (0, int(p.stem), p.name) if p.stem.isdecimal() else (1, 0, p.name)
        )
