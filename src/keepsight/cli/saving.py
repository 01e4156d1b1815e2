"""Answers as pictures in a folder (``predict --save``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keepsight.errors import BadInputError


class Saved:
    """A folder that takes the answers as pictures."""

    def __init__(self, folder: Path, task: str, background: Any) -> None:
        self._folder, self._task, self._background = folder, task, background
        self._names: set[str] = set()

    @classmethod
    def to(cls, folder: Path | None, predictor: Any, *, background: str) -> Saved | None:
        """The folder, made where it is missing; None where no folder is named.

        Args:
            folder: Where the pictures go.
            predictor: Whose answers they are.
            background: A colour, the path of a picture, or empty.

        Raises:
            BadInputError: The task's answers are no pictures, the background is neither colour nor picture, or the
                folder cannot be made.
        """
        from keepsight.runtime import pictured
        from keepsight.runtime.decode import decode

        if folder is None:
            return None
        pictured.check(predictor.info.task)
        behind: Any
        if background and Path(background).is_file():
            behind = decode(read(Path(background)))
        else:
            behind = pictured.colour(background)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInputError(
                f"The folder {folder} cannot be made: {error.strerror}.", expected="a folder.", do="Name another one."
            ) from None
        return cls(folder, predictor.info.task, behind)

    def write(self, path: Path, data: bytes, answer: dict[str, Any]) -> Path:
        """Writes the answer to a picture under the picture's name; the file's path."""
        from keepsight.runtime import pictured

        content = pictured.picture(self._task, answer, data, background=self._background)
        name, number = path.stem, 1
        while name in self._names:
            number += 1
            name = f"{path.stem}-{number}"
        self._names.add(name)
        target = self._folder / f"{name}.png"
        try:
            target.write_bytes(content)
        except OSError as error:
            raise BadInputError(
                f"{target} cannot be written: {error.strerror}.", expected="room and rights.", do="Check the folder."
            ) from None
        return target


def read(path: Path) -> bytes:
    """The bytes of a picture's file.

    Raises:
        BadInputError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be read: {error.strerror}.", expected="a picture file.", do="Check the path."
        ) from None
