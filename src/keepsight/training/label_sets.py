"""A head for any number of labels a picture: for each a yes-or-no question of its own to the frozen backbone.

One-vs-rest: each label is fitted by :func:`keepsight.training.head.fit_head` as two classes, with and without, so that
its strength and temperature come from grouped out-of-fold predictions. The difference of the two logits over the
temperature is the label's calibrated log odds; those of all labels are one linear layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.runtime.label_sets import EVEN, agreement, chances
from keepsight.training.head import Search, fit_head, principal_axes
from keepsight.training.holdout import judge

# Directions of the features that are kept: each label costs time for each of them. On 4 labels of 2,640 pictures the
# fewer ones lost 0.024 of the average precision and took less than half of the time.
AXES, FEW_AXES = 640, 256
# Of one label and one picture, with all axes, on a machine that does other things too.
SECONDS_EACH = 0.005

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class SetHead:
    """A linear layer on normalised features; its logits are calibrated log odds, one for each label.

    Attributes:
        weight: (k, d) float32, bias (k,) float32: act on power- and L2-normalised features.
        power: Exponent of the power normalisation.
        chances: (n, k) out-of-fold chances of the rows.
        judged: (n, k) whether a row counts for a label: it was held out, and both answers were learned without it.
        plan: JSON-able record of the searches, by label.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    power: float
    chances: Floats
    judged: Bools
    plan: dict[str, Any]


def fit(
    features: NDArray[np.floating],
    present: Bools,
    groups: NDArray[np.int64],
    *,
    names: Sequence[str],
    validation: Bools,
    seed: int,
    most_axes: int = AXES,
    on_progress: Callable[[float], None],
) -> SetHead:
    """The head fitted to all rows, a label after the other.

    A label that all rows have, or none, has nothing to learn: its chance is Laplace's, the same for every picture, and
    no row counts for it.

    Args:
        features: (n, d) raw features of the frozen backbone.
        present: (n, k) which labels a row has.
        groups: (n,) rows that must not stand on both sides of a fold, near-duplicates joined.
        names: The k labels.
        validation: (n,) rows of the given val split; where it shows enough of a label, it is held out for it.
        seed: Decides the folds.
        most_axes: Directions of the features that are kept.
        on_progress: Called with the finished share, 0..1; may raise to stop.
    """
    n, k = present.shape
    search = Search()
    axes = principal_axes(features, power=search.power, most=most_axes)
    weight, bias = np.zeros((k, features.shape[1]), np.float32), np.zeros(k, np.float32)
    held, judged = np.full((n, k), EVEN), np.zeros((n, k), np.bool_)
    plans: dict[str, Any] = {}
    for place, name in enumerate(names):
        column = present[:, place]
        if column.all() or not column.any():
            share = (column.sum() + 1) / (n + 2)
            bias[place] = math.log(share / (1 - share))
            held[:, place] = share
            continue
        labels = column.astype(np.int64)
        head = fit_head(
            features,
            labels,
            groups,
            n_classes=2,
            seed=seed,
            search=search,
            validation=judge(labels, validation),
            axes=axes,
            on_progress=_from(place / k, 1 / k, on_progress),
        )
        weight[place] = (head.weight[1] - head.weight[0]) / head.temperature
        bias[place] = (head.bias[1] - head.bias[0]) / head.temperature
        held[:, place] = chances((head.oof.logits[:, 1] - head.oof.logits[:, 0]) / head.temperature)
        judged[:, place] = head.oof.judged
        plans[name] = {key: value for key, value in head.plan.items() if key not in ("recipe", "seed", "candidates")}
    on_progress(1.0)
    return SetHead(
        weight, bias, search.power, held, judged, {"recipe": "head", "seed": seed, "axes": most_axes, "labels": plans}
    )


def affordable_axes(rows: int, labels: int, *, seconds: float) -> int:
    """How many axes to keep, so that fitting ends in time."""
    return AXES if rows * labels * SECONDS_EACH <= seconds else FEW_AXES


def _from(done: float, part: float, on_progress: Callable[[float], None]) -> Callable[[float], None]:
    """Tells the share that is finished while a part of the work is done, of which ``done`` came before."""
    return lambda share: on_progress(done + share * part)


def threshold_for(held: Floats, true: Bools, *, rate: float) -> float:
    """The chance from which on a label is given, so that at most a share ``rate`` of pictures without it gets it.

    The lowest threshold above which so few of the m held-out pictures without the label lie that the next such picture
    passes with a chance of at most ``rate``: floor(rate (m + 1)) - 1 of them may, for pictures like the held-out ones
    (the order statistics of exchangeable draws, Vovk et al. 2005). With fewer than 1 / rate - 1 such pictures nobody
    can promise that; none of them passes then. Up to the least sure picture that has the label and passes, a higher
    threshold finds as many with fewer false alarms: the middle of that range is taken, in log odds, so that new
    pictures of either kind have room.

    Args:
        held: (n,) held-out chances.
        true: (n,) whether the picture has the label.
        rate: Stated false alarm rate, 0 to 1.
    """
    without = np.sort(held[~true])[::-1]
    may_pass = max(0, math.floor(rate * (len(without) + 1)) - 1)
    least = float(without[may_pass]) if may_pass < len(without) else 0.0
    lowest = float(np.nextafter(least, 1.0))
    found = held[true & (held >= lowest)]
    if not len(found):
        return lowest
    return max(lowest, float(chances((_log_odds(least) + _log_odds(float(found.min()))) / 2)))


def threshold_for_f1(held: Floats, true: Bools) -> float:
    """Half of the best F1 that any threshold reaches, which is where F1 is best for calibrated chances (Lipton 2014).

    The best threshold of a few held-out pictures itself would jump with each of them.

    Args:
        held: (n,) held-out chances.
        true: (n,) whether the picture has the label.
    """
    if not true.any():
        return EVEN
    order = np.argsort(-held, kind="stable")
    hits = true[order].cumsum()
    f1 = 2 * hits / (np.arange(1, len(held) + 1) + true.sum())
    return float(min(EVEN, f1.max() / 2))


def togetherness(shares: Floats, true: Bools, limits: Floats) -> float:
    """How far errors of labels come together, 0 to 1: what makes the chance of a whole set right (least log loss).

    Args:
        shares: (n, k) held-out chances.
        true: (n, k) the labels.
        limits: (k,) thresholds.
    """
    if not len(shares):
        return 0.0
    right = np.equal(shares >= limits, true).all(axis=1)
    # Platt's targets (1999): a few pictures that were all answered rightly are no certainty.
    wanted = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))

    def loss(together: float) -> float:
        sure = np.clip(agreement(shares, limits, together=together), 1e-9, 1 - 1e-9)
        return float(-(wanted * np.log(sure) + (1 - wanted) * np.log(1 - sure)).mean())

    return float(min(np.linspace(0, 1, 21), key=loss))


def _log_odds(share: float) -> float:
    held = min(max(share, 1e-6), 1 - 1e-6)
    return math.log(held / (1 - held))
