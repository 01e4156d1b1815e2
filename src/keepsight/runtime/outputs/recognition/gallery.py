"""Who is known: names with the vectors of their pictures, searched exactly, that come and go while requests run.

A picture is compared with the centre of each name's views, the mean of their unit vectors (Mensink et al. 2013): with a
few views a name this names more pictures rightly than the most similar single view does.

A gallery is read by many threads and changed by one. Centres lie in blocks of fixed capacity, a row for each name: a
new one is written behind the last that readers see, and becomes visible when the count is raised; one that goes is
overwritten with zeros. So no reader ever waits, and nothing is copied, however large the gallery is. A reader that
meets a row while it is written compares with a mixture of the centre before and the one after.

``gallery.npz`` holds ``vectors`` float16 (n, d), ``names`` and ``samples`` (texts, n), and the calibration.
"""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import BundleError
from keepsight.runtime.bundle import write_arrays
from keepsight.runtime.outputs.recognition.calibration import Calibration

PART = "gallery.npz"
# Rows of a block: 40 MB at 1,280 numbers.
BLOCK = 8192
# So many of a shortlist's rows are compared exactly, for each name that is asked for.
_CANDIDATES = 16
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Entry:
    """One enrolled view: whose, from which sample, and its vector (d,), which need not be of unit length."""

    name: str
    sample: str
    vector: Vectors


@dataclass(frozen=True)
class Near:
    """Somebody in the gallery and how alike they are (cosine to the centre of their views, -1 to 1)."""

    name: str
    similarity: float


class Shortlist(Protocol):
    """A faster way to the best rows of many: what an index library gives."""

    rows: int
    """How many of the gallery's first rows it was made of."""

    def best(self, query: Vectors, count: int) -> NDArray[np.int64]:
        """Rows that hold the ``count`` most similar centres, in any order."""


@dataclass(frozen=True)
class _Index:
    """A shortlist, and the rows that changed since it was made."""

    shortlist: Shortlist
    changed: frozenset[int] = frozenset()


class _Block:
    """Room for centres; rows before ``count`` are read by anybody, those behind are the writer's."""

    def __init__(self, dim: int) -> None:
        self.centres = np.zeros((BLOCK, dim), np.float32)
        self.views = np.zeros(BLOCK, np.int64)
        self.count = 0


class Gallery:
    """The enrolled ones and their vectors.

    Args:
        dim: Length of a vector.
        calibration: What similarities mean.
    """

    def __init__(self, dim: int, calibration: Calibration) -> None:
        self.dim = dim
        self.calibration = calibration
        self._write = threading.Lock()
        self._blocks: list[_Block] = []
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._samples: dict[str, list[tuple[int, NDArray[np.float16]]]] = {}
        self._of_name: list[set[str]] = []
        self._people = 0
        self._threshold = calibration.threshold(1)
        self._index: _Index | None = None

    # --- reading ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many views there are."""
        return sum(map(len, self._samples.values()))

    @property
    def people(self) -> int:
        """How many different names there are."""
        return self._people

    @property
    def threshold(self) -> float:
        """The lowest similarity that is accepted."""
        return self._threshold

    def names(self) -> dict[str, int]:
        """How many views each name has, by name."""
        with self._write:
            found = {name: self._views_of(number) for name, number in self._numbers.items()}
        return {name: found[name] for name in sorted(found) if found[name]}

    def samples(self) -> set[str]:
        """The samples that views came from."""
        with self._write:
            return set(self._samples)

    def search(self, query: Vectors, *, top: int) -> list[Near]:
        """The ``top`` most similar names, falling, for one unit vector (d,)."""
        index, blocks = self._index, list(self._blocks)
        if index is None:
            parts = [block.centres[: block.count] @ query for block in blocks]
            similarities = np.concatenate(parts) if parts else np.zeros(0, np.float32)
            rows = np.arange(len(similarities))
            # More than are asked for: some may have no views any more.
            if len(rows) > 4 * top:
                rows = np.argpartition(-similarities, 2 * top)[: 2 * top]
                similarities = similarities[rows]
        else:
            rows = self._candidates(index, blocks, query, top=top)
            similarities = np.array([blocks[row // BLOCK].centres[row % BLOCK] @ query for row in rows], np.float32)
        order = rows[np.argsort(-similarities, kind="stable")]
        found = dict(zip(rows.tolist(), similarities.tolist(), strict=True))
        there = [int(row) for row in order if blocks[row // BLOCK].views[row % BLOCK]]
        return [Near(self._names[row], found[row]) for row in there[:top]]

    @staticmethod
    def _candidates(index: _Index, blocks: list[_Block], query: Vectors, *, top: int) -> NDArray[np.int64]:
        """The rows that an index proposes, and those that it does not know as they are now."""
        count = sum(block.count for block in blocks)
        proposed = index.shortlist.best(query, _CANDIDATES * top)
        beyond = np.arange(index.shortlist.rows, count)
        return np.unique(np.concatenate([proposed, beyond, np.array(sorted(index.changed), np.int64)]))

    # --- changing -----------------------------------------------------------------------------------------------------

    def put(self, entries: Sequence[Entry]) -> None:
        """Adds views; what the gallery had of the same samples goes.

        Raises:
            BundleError: A vector has another length.
        """
        with self._write:
            touched = {row for sample in {entry.sample for entry in entries} for row in self._forget(sample)}
            touched |= {self._add(entry) for entry in entries}
            self._settle(touched)

    def drop(self, samples: Iterable[str]) -> None:
        """Takes out what came from these samples; their vectors are overwritten."""
        with self._write:
            self._settle({row for sample in samples for row in self._forget(sample)})

    def _add(self, entry: Entry) -> int:
        vector = np.asarray(entry.vector, np.float32)
        if vector.shape != (self.dim,):
            raise BundleError(
                f"A vector of the gallery has shape {vector.shape}.",
                expected=f"shape ({self.dim},), as the network gives.",
                do="Enrol the picture again with the model that is live.",
            )
        number = self._numbers.get(entry.name)
        if number is None:
            number = self._numbers[entry.name] = len(self._names)
            self._names.append(entry.name)
            self._of_name.append(set())
        unit = (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float16)
        self._samples.setdefault(entry.sample, []).append((number, unit))
        self._of_name[number].add(entry.sample)
        return number

    def _forget(self, sample: str) -> list[int]:
        """Removes a sample's views; the rows that have to be made anew."""
        rows = []
        for number, vector in self._samples.pop(sample, ()):
            vector[:] = 0
            self._of_name[number].discard(sample)
            rows.append(number)
        return rows

    def _settle(self, touched: set[int]) -> None:
        """Writes the centres of the touched rows, the known ones first and the new ones in their order."""
        for row in sorted(touched):
            while row // BLOCK >= len(self._blocks):
                self._blocks.append(_Block(self.dim))
            block, at = self._blocks[row // BLOCK], row % BLOCK
            views = self._vectors_of(row)
            centre = views[0].astype(np.float32) if views else np.zeros(self.dim, np.float32)
            if len(views) > 1:
                centre = np.sum(views, axis=0, dtype=np.float32)
            self._people += bool(views) - bool(block.views[at])
            block.centres[at] = centre / max(float(np.linalg.norm(centre)), 1e-12)
            block.views[at] = len(views)
            # Last, so that a reader never sees half of a new one.
            block.count = max(block.count, at + 1)
        self._threshold = self.calibration.threshold(self._people)
        if self._index is not None and touched:
            known = {row for row in touched if row < self._index.shortlist.rows}
            self._index = _Index(self._index.shortlist, self._index.changed | known)

    def _vectors_of(self, number: int) -> list[NDArray[np.float16]]:
        return [
            vector for sample in sorted(self._of_name[number]) for of, vector in self._samples[sample] if of == number
        ]

    def _views_of(self, number: int) -> int:
        return len(self._vectors_of(number))

    # --- an index for large galleries ---------------------------------------------------------------------------------

    @property
    def rows(self) -> int:
        """How many rows there are, those of names without views included."""
        return sum(block.count for block in list(self._blocks))

    @property
    def beyond(self) -> int:
        """How many rows the index does not know as they are now; all of them where there is none."""
        index = self._index
        return self.rows if index is None else self.rows - index.shortlist.rows + len(index.changed)

    def centres(self) -> Vectors:
        """A copy of all rows in their order, float32 (rows, d), zeros where nobody is; what an index is made of."""
        with self._write:
            parts = [block.centres[: block.count] for block in self._blocks]
            return np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)

    def use(self, shortlist: Shortlist, *, made_of: Vectors) -> None:
        """Searches by way of an index from now on; rows that changed since it was made are compared besides."""
        with self._write:
            changed = {
                row
                for place, block in enumerate(self._blocks)
                for row in range(place * BLOCK, min(place * BLOCK + block.count, len(made_of)))
                if not np.array_equal(block.centres[row - place * BLOCK], made_of[row])
            }
            self._index = _Index(shortlist, frozenset(changed))

    # --- as a part of a bundle ----------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """All views, by sample."""
        with self._write:
            return [
                Entry(self._names[number], sample, vector.astype(np.float32))
                for sample in sorted(self._samples)
                for number, vector in self._samples[sample]
            ]

    def to_bytes(self) -> bytes:
        """The content of ``gallery.npz``; equal galleries give equal bytes."""
        entries = self.entries()
        vectors = np.stack([entry.vector for entry in entries]) if entries else np.zeros((0, self.dim))
        return write_arrays(
            {
                "vectors": vectors.astype(np.float16),
                "names": np.array([entry.name for entry in entries], np.str_),
                "samples": np.array([entry.sample for entry in entries], np.str_),
                **self.calibration.arrays(),
            }
        )

    @classmethod
    def read(cls, content: bytes) -> Gallery:
        """The gallery in the bytes of ``gallery.npz``.

        Raises:
            BundleError: They hold none.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                vectors = arrays["vectors"]
                names, samples = arrays["names"].tolist(), arrays["samples"].tolist()
                made = cls(int(vectors.shape[1]), Calibration.of_arrays(arrays))
                made.put([Entry(*row) for row in zip(names, samples, vectors.astype(np.float32), strict=True)])
        except (KeyError, ValueError, IndexError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise BundleError(
                f"{PART} of the bundle cannot be read ({error}).",
                expected="vectors, names, samples and the calibration.",
                do="Copy the bundle again from where it was made, or make it anew with `keepsight train`.",
            ) from error
        return made
