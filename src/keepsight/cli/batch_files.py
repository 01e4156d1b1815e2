"""Where ``keepsight batch`` finds pictures, and the file that its answers go to."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

from keepsight.data.importers.source import beside, hidden
from keepsight.data.importers.tables import PATH_NAMES
from keepsight.errors import BadInputError, ConflictError, DataError, KeepsightError, StorageError
from keepsight.runtime.decode import DEFAULT_LIMITS

COLUMNS = ("picture", "label", "confidence", "decision", "details", "quality_reasons", "error", "model")
SUFFIXES = (".csv", ".jsonl")
_TABLES = {".csv", ".tsv"}
_SEPARATORS = ",;\t|"


class Pictures(Protocol):
    """Pictures by name, one after the other; none is read before its turn."""

    def names(self) -> Iterator[str]:
        """The names, in an order that stays the same while nothing changes."""

    def read(self, name: str) -> bytes:
        """One picture's file.

        Raises:
            BadInputError: It cannot be read, or is too large.
        """


def pictures_at(place: str) -> Pictures:
    """The pictures of a folder, of a table that lists their paths, or of a bucket.

    Raises:
        BadInputError: There is nothing of the kind.
    """
    if "://" in place:
        return _Bucket(place)
    path = Path(place)
    if path.is_dir():
        return _Folder(path)
    if path.is_file() and path.suffix.lower() in _TABLES:
        return _Table(path)
    raise BadInputError(
        f"{place} is {'no table of pictures' if path.exists() else 'not there'}.",
        expected="a folder, a .csv file with a column path, or a bucket such as s3://NAME/FOLDER.",
        do="Check the path. For single pictures use `keepsight predict`.",
    )


class _Folder:
    """All pictures below a folder, named by their path in it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> Iterator[str]:
        for folder, below, files in os.walk(self._root, onerror=_stop):
            place = Path(folder)
            below[:] = sorted(name for name in below if not hidden(place / name))
            for name in sorted(files):
                path = place / name
                if not hidden(path) and beside(path, name) is None:
                    yield path.relative_to(self._root).as_posix()

    def read(self, name: str) -> bytes:
        return _read_file(self._root / name)


class _Table:
    """The pictures that a table lists, named as it does; relative paths begin at the table."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> Iterator[str]:
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as file:
                separator = max(_SEPARATORS, key=file.readline().count)
                file.seek(0)
                yield from self._column(csv.reader(file, delimiter=separator, strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise BadInputError(
                f"{self._path} is no CSV table in UTF-8 ({error}).",
                expected="cells separated by commas, quotes closed, in UTF-8.",
                do='Save it again as "CSV UTF-8".',
            ) from None
        except OSError as error:
            raise _unreadable(self._path, error) from None

    def _column(self, lines: Iterator[list[str]]) -> Iterator[str]:
        header = [name.strip().lower() for name in next(lines, [])]
        at = next((header.index(name) for name in PATH_NAMES if name in header), None)
        if at is None:
            raise DataError(
                f"{self._path} has no column of paths; its columns are {', '.join(header) or 'without names'}.",
                expected=f"a column called {', '.join(PATH_NAMES[:-1])} or {PATH_NAMES[-1]}.",
                do="Give the column with the pictures' paths one of these names.",
            )
        for cells in lines:
            if len(cells) > at and cells[at].strip():
                yield cells[at].strip()

    def read(self, name: str) -> bytes:
        return _read_file(self._path.parent / name)


class _Bucket:
    """All pictures below a URL of S3, Google Cloud Storage or Azure; access comes from the environment."""

    def __init__(self, url: str) -> None:
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        self._url = url
        self._failures = (BaseError, OSError)
        try:
            self._objects = from_url(url)
        except (BaseError, ValueError) as error:
            raise BadInputError(
                f"{url} cannot be opened: {_first_line(error)}",
                expected="a URL such as s3://NAME/FOLDER, gs:// or az://.",
                do="Correct it, and the access in the environment.",
            ) from None

    def names(self) -> Iterator[str]:
        import obstore

        try:
            for part in obstore.list(self._objects):
                for item in part:
                    path = Path(item["path"])
                    if not any(hidden(Path(name)) for name in path.parts) and beside(path, path.name) is None:
                        yield str(item["path"])
        except self._failures as error:
            raise StorageError(
                f"{self._url} cannot be listed: {_first_line(error)}",
                expected="a bucket that may be listed and read.",
                do="Check its name and the access in the environment.",
            ) from None

    def read(self, name: str) -> bytes:
        import obstore

        try:
            found = obstore.get(self._objects, name)
            _check_size(name, int(found.meta["size"]))
            return bytes(found.bytes())
        except self._failures as error:
            raise BadInputError(
                f"{name} cannot be read: {_first_line(error)}", expected="a picture.", do="Check the bucket."
            ) from None


class Answers:
    """The file of answers, CSV or JSON lines: a row for each picture, each on disk before many more are begun.

    Args:
        path: Ends in ``.csv`` or ``.jsonl``.
        model: Number of the model that answers; stands in every row.
        resume: Goes on with the file that is there; a last row that was cut off is dropped.

    Raises:
        BadInputError: Another suffix. ConflictError: The file is there and must not be, or is of another model.
        StorageError: It cannot be written.
    """

    def __init__(self, path: Path, *, model: int, resume: bool) -> None:
        if path.suffix.lower() not in SUFFIXES:
            raise BadInputError(
                f"--out is {path}.", expected="a name that ends in .csv or .jsonl.", do="Choose the one you need."
            )
        if path.exists() and not resume:
            raise ConflictError(
                f"{path} is there already.", expected="a new file.", do="Name another one, or go on with --resume."
            )
        self._path = path
        self._model = model
        self._as_csv = path.suffix.lower() == ".csv"
        self._done: Counter[str] = Counter()
        self._added = 0
        try:
            if path.exists():
                self._take_up()
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = path.open("a", encoding="utf-8", errors="surrogateescape", newline="")
        except OSError as error:
            raise _unwritable(path, error) from None
        self._writer = csv.writer(self._file, lineterminator="\n")
        if self._as_csv and not self._file.tell():
            self._writer.writerow(COLUMNS)

    @property
    def already(self) -> int:
        """How many rows there were."""
        return self._done.total()

    def remaining(self, names: Iterator[str]) -> Iterator[str]:
        """The names that have no row yet."""
        left = self._done.copy()
        for name in names:
            if left[name] > 0:
                left[name] -= 1
            else:
                yield name

    def add(self, name: str, answer: Mapping[str, Any]) -> None:
        """Writes the row of one picture: what ``Prediction.as_dict`` or ``KeepsightError.as_dict`` gives."""
        try:
            if self._as_csv:
                self._writer.writerow(_cells(name, answer, model=self._model))
            else:
                row = {"picture": name, **answer, "model": self._model}
                self._file.write(json.dumps(row) + "\n")
            self._added += 1
        except OSError as error:
            raise _unwritable(self._path, error) from None

    def flush(self) -> None:
        """Puts what was added on disk."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _unwritable(self._path, error) from None

    def close(self) -> None:
        """Ends the file; one without any row does not stay."""
        try:
            self._file.close()
            if not self._added and not self._done:
                self._path.unlink()
        except OSError as error:
            raise _unwritable(self._path, error) from None

    def _take_up(self) -> None:
        whole = 0
        with self._path.open("rb") as file:
            for number, record in enumerate(_records(file, quoted=self._as_csv)):
                whole += len(record)
                text = record.decode("utf-8", "surrogateescape")
                name, model = self._parse(text, number=number)
                if name is None:
                    continue
                if model != self._model:
                    raise ConflictError(
                        f"{self._path} holds answers of model {model}.",
                        expected=f"answers of model {self._model}, which would answer now.",
                        do=f"Go on with --model {model}, or name another file.",
                    )
                self._done[name] += 1
        os.truncate(self._path, whole)

    def _parse(self, text: str, *, number: int) -> tuple[str | None, int | None]:
        """Name and model of a row; no name for the header."""
        try:
            if not self._as_csv:
                row = json.loads(text)
                return str(row["picture"]), int(row["model"])
            (cells,) = csv.reader([text], strict=True)
            if number == 0 and tuple(cells) == COLUMNS:
                return None, None
            values = dict(zip(COLUMNS, cells, strict=True))
            return values["picture"], int(values["model"])
        except (ValueError, KeyError, TypeError, csv.Error):
            raise ConflictError(
                f"{self._path} holds something else than answers (row {number + 1}).",
                expected="a file that `keepsight batch` wrote.",
                do="Name another file.",
            ) from None


def _records(file: IO[bytes], *, quoted: bool) -> Iterator[bytes]:
    """Whole rows; a quoted cell may hold line ends. What is cut off at the end is left out."""
    record = b""
    for line in file:
        record += line
        if line.endswith(b"\n") and not (quoted and record.count(b'"') % 2):
            yield record
            record = b""


def _cells(name: str, answer: Mapping[str, Any], *, model: int) -> list[Any]:
    if "error" in answer:
        error = answer["error"]
        return [name, "", "", "", "", "", f"{error['code']}: {error['found']}", model]
    known = {*COLUMNS, "quality", "timings_ms"}
    details = {key: value for key, value in answer.items() if key not in known}
    return [
        name,
        answer["label"],
        f"{answer['confidence']:.6f}",
        answer["decision"],
        json.dumps(details),
        " ".join(answer["quality_reasons"]),
        "",
        model,
    ]


def _read_file(path: Path) -> bytes:
    try:
        _check_size(str(path), path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be read: {error.strerror}.", expected="a picture file.", do="Check the path."
        ) from None


def _check_size(name: str, size_bytes: int) -> None:
    """Refuses a file before it is read into memory."""
    if size_bytes > DEFAULT_LIMITS.max_bytes:
        raise BadInputError(
            f"{name} has {size_bytes / 1e6:.0f} MB.",
            expected=f"a picture of at most {DEFAULT_LIMITS.max_bytes / 1e6:.0f} MB.",
            do="Leave it out, or make it smaller.",
        )


def _stop(error: OSError) -> None:
    raise _unreadable(Path(str(error.filename)), error)


def _unreadable(path: Path, error: OSError) -> KeepsightError:
    return StorageError(
        f"{path} cannot be read: {error.strerror}.",
        expected="something that can be read.",
        do="Change its permissions.",
    )


def _unwritable(path: Path, error: OSError) -> KeepsightError:
    return StorageError(
        f"{path} cannot be written: {error.strerror}.",
        expected="a place with room that may be written to.",
        do="Make room or choose another place, then go on with --resume.",
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
