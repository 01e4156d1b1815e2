"""An index for galleries that are too large to be compared row by row in time (extra ``[ann]``).

The 8-bit copy of each name's centre is compared by faiss (a scalar quantiser), and the best of these exactly. What
changed since the index was made is compared exactly, too, so an enrolment costs no new index; it is made anew, beside
the old one, when the changes have become many. Without the extra everything is compared exactly, which takes longer.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.runtime.outputs.recognition.gallery import Gallery

log = logging.getLogger(__name__)
# Numbers to compare for one answer, from which on an index pays: about 10 ms on one core.
LEAST_NUMBERS = 25_000_000
# So many rows, as a share of all, may be unknown to the index.
MOST_BEYOND = 0.05
_SCALE = 127.0
_AT_ONCE = 20_000
_making = threading.Lock()


class Quantised:
    """Rows as 8-bit numbers, compared by faiss.

    Args:
        vectors: float32 (n, d), of unit length, or zeros.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        import faiss

        self.rows = len(vectors)
        largest = max((float(np.abs(part).max()) for part in np.array_split(vectors, 64) if len(part)), default=1.0)
        self._scale = np.float32(_SCALE / max(largest, 1e-6))
        dim = vectors.shape[1]
        self._index: Any = faiss.IndexScalarQuantizer(
            dim, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT
        )
        for start in range(0, len(vectors), _AT_ONCE):
            self._index.add(np.rint(vectors[start : start + _AT_ONCE] * self._scale))

    def best(self, query: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """As `keepsight.runtime.outputs.recognition.gallery.Shortlist` says."""
        # faiss rounds the query to 8 bits, too, so it has to fill them.
        wanted = np.clip(query * self._scale, -_SCALE, _SCALE)
        found: NDArray[np.int64] = self._index.search(wanted[None], min(count, self.rows))[1][0]
        return found[found >= 0]


def refresh(gallery: Gallery) -> None:
    """Gives a large gallery an index, or a new one where many rows changed since; requests go on meanwhile."""
    rows, beyond = gallery.rows, gallery.beyond
    if rows * gallery.dim < LEAST_NUMBERS or beyond <= MOST_BEYOND * rows:
        return
    if importlib.util.find_spec("faiss") is None:
        log.warning("A gallery of %d names has no index: answers take longer. Install the extra [ann].", rows)
        return
    began = time.monotonic()
    with _making:
        centres = gallery.centres()
        gallery.use(Quantised(centres), made_of=centres)
    log.info("An index over %d names was made in %.1f s", rows, time.monotonic() - began)
