"""Decides what fits: where to cut, how many views, how many steps, from the pictures, the time and this machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from keepsight.errors import BudgetError
from keepsight.training.finetune.network import Cut, Tail
from keepsight.training.finetune.settings import Plan

if TYPE_CHECKING:
    import onnx

# A tail with less of the weights learns little; above the larger share, training costs more than it brings.
LEAST_TRAINED, MOST_TRAINED = 0.6, 0.96
# Rounds through the pictures: what is worth starting for, what an earlier cut must leave room for, what is enough.
LEAST_EPOCHS, WANTED_EPOCHS, MOST_EPOCHS = 3, 24, 40
LEAST_STEPS = 160
# Below this not even few pictures are worth it.
SHORTEST_S = 5.0
# Of the time for making views and for training after all pictures are seen.
_VIEW_SHARE, SECOND_SHARE = 0.25, 0.2
_MOST_VIEWS = 8
_WINDOWED_STEPS = 0.7
# For the bundle, its figures and the gate: so much, and so much for each picture, up to a share of all.
_RESERVE_S, _RESERVE_PICTURE_S, _RESERVE_SHARE = 8.0, 0.02, 0.25
# What other programs on the machine may take without the plan failing.
_SLACK = 0.9
_TRIAL_BATCH = 16


@dataclass(frozen=True)
class Speed:
    """How fast this machine is.

    Attributes:
        cut: Where the network is divided.
        half: Whether bfloat16 is quicker.
        row_s: Seconds for one picture in a step on maps of the plain size.
        window_row_s: The same on windows.
        view_s: Seconds to make one view and its activations.
    """

    cut: Cut
    half: bool
    row_s: float
    window_row_s: float
    view_s: float

    @property
    def mean_row_s(self) -> float:
        """Seconds for one picture in a step, over a phase."""
        return _WINDOWED_STEPS * self.window_row_s + (1 - _WINDOWED_STEPS) * self.row_s


def candidates(cuts: Sequence[Cut]) -> list[Cut]:
    """The cuts worth a look, the earliest first: those with small maps, few of about one depth."""
    worth = [cut for cut in cuts if LEAST_TRAINED <= cut.trained <= MOST_TRAINED]
    if not worth:
        worth = [cut for cut in cuts if cut.trained >= LEAST_TRAINED][-1:] or list(cuts[:1])
    chosen: list[Cut] = []
    for cut in worth:
        if chosen and chosen[-1].trained - cut.trained < 0.03:
            # Of two places at about one depth the one with fewer numbers is cheaper to keep.
            if cut.values <= chosen[-1].values:
                chosen[-1] = cut
            continue
        if chosen and cut.values > 2 * chosen[-1].values:
            continue
        chosen.append(cut)
    return chosen[:4]


def step_seconds(
    model: onnx.ModelProto, cut: Cut, *, half: bool, window: float, device: str, clock: Callable[[], float]
) -> tuple[float, float]:
    """Seconds for one picture in a training step, on the plain map and on a window of it."""
    import torch

    tail = Tail(model, cut, half=half, device=device)
    found = []
    for share in (1.0, window):
        channels, height, width = cut.shape
        shape = (_TRIAL_BATCH, channels, max(1, round(height * share)), max(1, round(width * share)))
        maps = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
        taken = []
        for _ in range(3):
            began = clock()
            # Reading a number waits for a device that works by itself.
            loss = tail(maps).square().mean()
            loss.backward()
            loss.item()
            taken.append(clock() - began)
        found.append(min(taken[1:]) / _TRIAL_BATCH)
    return found[0], found[1]


def quicker_in_half(
    model: onnx.ModelProto, cut: Cut, *, window: float, device: str, clock: Callable[[], float]
) -> bool:
    """Whether this machine trains faster in bfloat16."""
    wide, half = (
        step_seconds(model, cut, half=kind, window=window, device=device, clock=clock)[1] for kind in (False, True)
    )
    return half < 0.9 * wide


def left_for_training(total_left_s: float, pictures: int) -> float:
    """Of the time that is left, what views and training may take."""
    reserve = min(_RESERVE_SHARE * total_left_s, _RESERVE_S + _RESERVE_PICTURE_S * pictures)
    return (total_left_s - reserve) * _SLACK


def decide(draft: Plan, speeds: Sequence[Speed], *, pictures: int, training: int, left_s: float) -> Plan:
    """The plan for so many pictures, of which ``training`` are not held out, and so much time.

    Args:
        draft: With everything that does not depend on time.
        speeds: At each candidate cut, the earliest first.
        pictures: To look at.
        training: Of them, those that the first phase trains on.
        left_s: For views and training.

    Raises:
        BudgetError: Not even a short training fits; tells how long it would take.
    """
    batch = min(draft.batch, max(8, 2 ** int(math.log2(max(8, training // 8)))))
    per_epoch = max(1, training // batch)
    enough = max(MOST_EPOCHS * per_epoch, LEAST_STEPS)
    least = min(LEAST_EPOCHS * per_epoch, enough)
    wanted = min(max(WANTED_EPOCHS * per_epoch, LEAST_STEPS), enough)
    fits = []
    for speed in speeds:
        views = min(_MOST_VIEWS, max(1, int(_VIEW_SHARE * min(left_s, 1e9) / (pictures * speed.view_s)) - 1))
        step_s = batch * speed.mean_row_s * (1 + SECOND_SHARE)
        time_s = left_s - pictures * (views + 1) * speed.view_s
        fits.append((speed, views, int(min(time_s / step_s, enough))))
    chosen = next((fit for fit in fits if fit[2] >= wanted), max(fits, key=lambda fit: fit[2]))
    speed, views, steps = chosen
    if steps < least:
        cheapest = min(
            pictures * 2 * each.view_s + least * batch * each.mean_row_s * (1 + SECOND_SHARE) for each in speeds
        )
        needed = (cheapest / _SLACK + _RESERVE_S + _RESERVE_PICTURE_S * pictures) / 60
        raise BudgetError(
            f"Fine-tuning on {pictures} pictures does not fit: {max(0.0, left_s) / 60:.1f} minutes are left for it.",
            expected=f"about {max(0.1, needed):.1f} minutes on this machine for the shortest useful training.",
            do=f"Give it more time (`--budget {math.ceil(needed)}m`), or train with the recipe `head`.",
            needed_minutes=needed,
        )
    return replace(
        draft,
        cut=speed.cut.name,
        half=speed.half,
        views=views,
        batch=batch,
        steps=steps,
        more_steps=math.ceil(SECOND_SHARE * steps),
    )
