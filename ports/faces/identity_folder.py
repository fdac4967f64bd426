"""A folder with a folder of images for each identity, as CASIA-WebFace is often handed on.

What is no JPEG or PNG file in a folder of its own identity is passed over, and told.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from qdgs_jax.ports.errors import printable
from qdgs_jax.ports.faces.damage import Damage, DamageLog, FaceSetError
from qdgs_jax.ports.faces.pair_lists import SUFFIXES
from qdgs_jax.ports.faces.pictures import (
    PictureError,
    common_size,
    decode_picture,
    require_size,
)

OTHER_IMAGES = (".avif", ".bmp", ".gif", ".heic", ".jp2", ".jpe", ".tif", ".tiff", ".webp")


class IdentityFolder:
    """Images of identities; folders and files in the order of their names, numbers by value.

    Args:
        path: the folder; folders in it are identities, counted from 0 in their order.
        side: pixels per side of the images; None takes the size of most.
        skip_corrupt: pass over damaged images; they are told in `damage`.

    Attributes:
        names: of the identities' folders.
        files: paths of the N images.
        identities: Int[N], of each image.
        passed_over: what else lies in the folder and could be meant as images, in sentences.

    Raises:
        FaceSetError: there are no images in folders.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        side: int | None = None,
        skip_corrupt: bool = False,
    ) -> None:
        self.path = Path(path)
        self._side = side
        self._passed: dict[str, list[Path]] = {}
        entries = self._sorted(iter(self._listed(self.path)))
        for entry in entries:
            if entry.suffix.lower() in (*SUFFIXES, *OTHER_IMAGES) and not entry.is_dir():
                self._pass("images that lie in no identity's folder", entry)
        folders = [entry for entry in entries if entry.is_dir()]
        found = [(file, folder) for folder in folders for file in self._images(folder)]
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
        for number in range(start, len(self)):
            file = self.files[number]
            try:
                picture = decode_picture(file.read_bytes())
                require_size(picture, self._size)
            except (PictureError, OSError) as error:
                self._log.add(f"file {file.relative_to(self.path)}", error)
                continue
            yield number, picture

    @functools.cached_property
    def _size(self) -> tuple[int, int] | None:
        """Height and width that the images have to have."""
        if self._side is not None:
            return (self._side, self._side)
        return common_size(len(self), lambda number: self.files[number].read_bytes())

    @property
    def passed_over(self) -> tuple[str, ...]:
        """What was not taken, in sentences."""
        return tuple(
            f"left out: {len(paths):,} {what}, such as "
            f"{printable(str(paths[0].relative_to(self.path)))}."
            for what, paths in self._passed.items()
        )

    @property
    def listing(self) -> str:
        """Digest of the images' names and sizes, which tells sets apart."""
        found = hashlib.sha256()
        for file in self.files:
            name = os.fsencode(file.relative_to(self.path))
            found.update(b"%d %s\0" % (file.stat().st_size, name))
        return found.hexdigest()[:16]

    def _images(self, folder: Path) -> list[Path]:
        """The images of an identity."""
        images = []
        for file in self._sorted(iter(self._listed(folder))):
            image = file.suffix.lower() in SUFFIXES
            if image and file.is_file():
                images.append(file)
            elif file.is_dir():
                self._pass("folders inside of identities' folders", file)
            elif image:
                self._pass("names of images that are no files", file)
            elif file.suffix.lower() in OTHER_IMAGES:
                self._pass(f"images of other kinds than {', '.join(SUFFIXES)}", file)
        if not images:
            self._pass("folders without an image", folder)
        return images

    def _pass(self, what: str, path: Path) -> None:
        self._passed.setdefault(what, []).append(path)

    @staticmethod
    def _listed(folder: Path) -> list[Path]:
        try:
            return list(folder.iterdir())
        except OSError as error:
            raise FaceSetError(f"{folder} cannot be read: {error.strerror}.") from None

    @staticmethod
    def _sorted(paths: Iterator[Path]) -> list[Path]:
        """By number where names are numbers, which come first; then by name."""
        return sorted(
            paths, key=lambda p: (0, int(p.stem), p.name) if p.stem.isdecimal() else (1, 0, p.name)
        )
