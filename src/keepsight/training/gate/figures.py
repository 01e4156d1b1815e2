"""Checks of how often a model is right: against the live one, and against given figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keepsight.tasks.intervals import Interval, wilson
from keepsight.training.gate.comparison import (
    Z_ONE_SIDED_95,
    Change,
    changes,
    names_of,
    one_sided,
    paired_difference,
    pictures_needed,
)
from keepsight.training.gate.evidence import RIGHT_OR_WRONG, Evidence, Judged, Scores, Settings, verb_of
from keepsight.training.gate.results import Check, Status, unknown
from keepsight.training.gate.words import more, pictures, points
from keepsight.training.slices import LEAST_PICTURES

DRIFT = "drift"
# Of these less is better; ``gate.max_ece`` bounds it.
ERRORS = frozenset({"ece"})
OF_CLASS = " of "


def against_champion(evidence: Evidence, settings: Settings) -> list[Check]:
    """The lower 95 % bound of the paired difference lies above -``gate.margin`` on ``test`` and on ``recent``.

    Where drift started the run, above 0 on ``recent`` (the model must have learned the new conditions) and above
    -``gate.margin_drift`` on ``test``. Without recent pictures only drift asks for them.
    """
    test, recent = evidence.test, evidence.recent
    if test.champion is None:
        return []
    drifted = evidence.trigger == DRIFT
    margin = settings["gate.margin"]
    checks = [_compare("test", test, allowed=settings["gate.margin_drift"] if drifted else margin)]
    if len(recent) and recent.champion is not None:
        checks.append(_compare("recent", recent, allowed=0.0 if drifted else margin))
    elif drifted:
        checks.append(unknown("recent", 0.0, "There are no recent checked pictures that could show a gain."))
    return checks


def enough_pictures(evidence: Evidence, settings: Settings) -> list[Check]:
    """At least ``gate.min_pictures`` test pictures, else nobody can tell anything."""
    least = settings["gate.min_pictures"]
    if not least:
        return []
    n = len(evidence.test)
    if n >= least:
        told = f"There are {pictures(n, 'test')} to judge by; at least {least} are asked for."
        return [Check("pictures", "pass", float(n), float(least), None, None, n, told)]
    told = f"There are only {pictures(n, 'test')} to judge by, and at least {least} are asked for: too little evidence."
    return [Check("pictures", "cannot_tell", float(n), float(least), None, None, n, told, {"pictures_needed": least})]


def accuracy(evidence: Evidence, settings: Settings) -> list[Check]:
    """``gate.min_accuracy``: the lower 95 % bound (Wilson) on test."""
    least = settings["gate.min_accuracy"]
    if least is None:
        return []
    test = evidence.test
    return [_at_least("accuracy", "of all test pictures", test.challenger, least, groups=test.groups)]


def metrics(evidence: Evidence, settings: Settings) -> list[Check]:
    """``gate.min_metric``: named figures of the task on test, of all classes (``f1``) or one (``recall of knife``)."""
    return [_metric(evidence.metrics, name, least) for name, least in sorted(settings["gate.min_metric"].items())]


def recall(evidence: Evidence, settings: Settings) -> list[Check]:
    """``gate.min_recall``: how many pictures of a class the model finds, the lower 95 % bound (Wilson)."""
    test = evidence.test
    checks = []
    for name, least in sorted(settings["gate.min_recall"].items()):
        rows = test.rows_of(name)
        if not rows.any():
            known = names_of(test.names) or "none"
            told = f'There is no test picture of "{name}"; the classes there are: {known}.'
            checks.append(unknown(f"recall of {name}", least, told, evidence={"names": test.names}))
            continue
        if verb_of(test.challenger) != RIGHT_OR_WRONG:
            # A score of a picture with several things says nothing about one of them.
            told = f'Pictures of this task show several things. Ask for it with gate.min_metric: "recall of {name}".'
            checks.append(unknown(f"recall of {name}", least, told))
            continue
        whose = f'of the test pictures of "{name}"'
        checks.append(_at_least(f"recall of {name}", whose, test.challenger[rows], least, groups=test.groups_of(rows)))
    return checks


def slices(evidence: Evidence, settings: Settings) -> list[Check]:
    """``gate.min_slice``: the share of right answers in named slices, the lower 95 % bound (Wilson)."""
    test = evidence.test
    there = {each.name: each.rows for each in test.slices}
    checks = []
    for name, least in sorted(settings["gate.min_slice"].items()):
        rows = there.get(name)
        if rows is None:
            known = names_of(sorted(there)) or "none"
            told = f'There is no slice "{name}" of the test pictures; those there are: {known}.'
            checks.append(unknown(f"slice {name}", least, told, evidence={"names": sorted(there)}))
            continue
        whose = f"of the test pictures with {name}"
        checks.append(_at_least(f"slice {name}", whose, test.challenger[rows], least, groups=test.groups_of(rows)))
    return checks


def slice_drop(evidence: Evidence, settings: Settings) -> list[Check]:
    """``gate.max_slice_drop``: no slice of the test pictures falls by more against the live model."""
    allowed, test = settings["gate.max_slice_drop"], evidence.test
    if allowed is None or test.champion is None:
        return []
    parts = {each.name: each.rows for each in test.slices if each.count >= LEAST_PICTURES}
    found = changes(parts, test.champion, test.challenger, groups=test.groups, allowed=allowed)
    if not found:
        told = "The test pictures have no slices in which the two models could be compared."
        return [unknown("slices", -allowed, told)]
    return [fallen("slices", "slices", found, allowed=allowed)]


def fallen(name: str, what: str, found: list[Change], *, allowed: float, binding: bool = True) -> Check:
    """The check that none of the parts fell, the worst of which is first; the figures are those of the worst."""
    worst = found[0]
    down = [change for change in found if change.status == worst.status]
    limit = f"{allowed * 100:.1f} points are allowed"
    if worst.status == "pass":
        told = f"None fell by more than {allowed * 100:.1f} points beyond chance ({len(found)} {what} looked at)."
        chance = [change for change in found if change.fell]
        if chance:
            told += f" By chance or not: {'; '.join(map(_moved, chance[:3]))}"
            told += f", and {len(chance) - 3} more." if len(chance) > 3 else "."
        elif worst.value < 0:
            told += f" The largest loss: {_moved(worst)}."
        open_ = sum(not change.excluded for change in found)
        if open_:
            told += f" For {open_} of them so large a fall cannot be ruled out: too few pictures."
    elif worst.status == "fail":
        told = f"Worse, and not by chance (95 % sure): {'; '.join(map(_moved, down[:3]))}; {limit}."
    else:
        told = f"Worse, which may be chance among so many {what}: {'; '.join(map(_moved, down[:3]))}; {limit}."
    if worst.status != "pass" and len(down) > 3:
        told += f" And {len(down) - 3} more."
    difference = worst.difference
    rows = {"parts": [change.as_dict() for change in found]}
    return Check(
        name, worst.status, worst.value, -allowed, difference.low, difference.high, difference.n, told, rows, binding
    )


def _moved(change: Change) -> str:
    return f"{change.name} from {change.before:.1%} to {change.after:.1%} ({pictures(change.difference.n)})"


def _metric(figures: Mapping[str, Any], name: str, least: float) -> Check:
    """A figure as the task computed it, by its two-sided interval drawn in."""
    known = [key for key, value in figures.items() if isinstance(value, Mapping) and "value" in value]
    figure = figures.get(name) if name in known and name not in ERRORS else None
    kind, separator, whose = name.partition(OF_CLASS)
    per_class = figures.get("per_class", {})
    if figure is None and separator:
        figure = per_class.get(whose, {}).get(kind)
    if not isinstance(figure, Mapping):
        names = sorted(set(known) - ERRORS)
        told = f'There is no figure "{name}"; those there are: {names_of(names) or "none"}'
        told += ", and of a class such as recall of " + sorted(per_class)[0] + "." if per_class else "."
        return unknown(name, least, told, evidence={"names": names})
    found = one_sided(figure)
    if found.value is None:
        return unknown(name, least, f"There are no test pictures that {name} could be measured on.")
    status: Status = "pass" if found.low >= least else "fail" if found.value < least else "cannot_tell"
    told = f"{name} is {found.value:.1%} on the test pictures ({found.n}); at least {least:.1%} is asked for."
    return _shown(name, status, found, least, told)


def _compare(name: str, part: Judged, *, allowed: float) -> Check:
    """The paired check: the lower bound of the difference above -``allowed``."""
    champion = np.zeros(0) if part.champion is None else part.champion
    found = paired_difference(champion, part.challenger, groups=part.groups)
    if found.value is None:
        told = f"There are no {name} pictures on which the two models can be compared."
        return unknown(name, -allowed, told)
    new, old = float(np.mean(part.challenger)), float(np.mean(champion))
    gained, lost = int((part.challenger > champion).sum()), int((champion > part.challenger).sum())
    status: Status = "pass" if found.low > -allowed else "cannot_tell" if found.value > -allowed else "fail"
    told = (
        f"On {pictures(found.n, name)} the new model {part.verb} {new:.1%} and the live one {old:.1%}: "
        f"{points(found.value)}."
    )
    bound = f"{'gain' if found.low > 0 else 'loss'} of {abs(found.low) * 100:.1f} points"
    needed = f"a loss below {allowed * 100:.1f} points is allowed" if allowed > 0 else "it must be better"
    if status == "pass":
        told += f" At worst (95 % sure) that is a {bound}; {needed}."
    elif status == "fail":
        told += f" That is not enough: {needed}."
    else:
        told += f" But it could be a {bound}, and {needed}: too few pictures to tell{more(found, -allowed)}."
    behind: dict[str, Any] = {"champion": old, "challenger": new, "gained": gained, "lost": lost}
    if status == "cannot_tell":
        behind["pictures_needed"] = pictures_needed(found, -allowed)
    return Check(name, status, found.value, -allowed, found.low, found.high, found.n, told, behind)


def _at_least(name: str, whose: str, scores: Scores, least: float, *, groups: ArrayLike | None) -> Check:
    """The threshold check: the lower bound of a mean score not below ``least``."""
    found = wilson(scores, groups=groups, z=Z_ONE_SIDED_95)
    if found.value is None:
        return unknown(name, least, f"There are none {whose}, so nobody can tell whether {least:.1%} are right.")
    status: Status = "pass" if found.low >= least else "fail" if found.value < least else "cannot_tell"
    told = f"The new model {verb_of(scores)} {found.value:.1%} {whose} ({found.n}); at least {least:.1%} are asked for."
    return _shown(name, status, found, least, told, right=int((scores == 1).sum()))


def _shown(name: str, status: Status, found: Interval, least: float, told: str, **behind: Any) -> Check:
    """A share that was compared with its least value."""
    if status == "pass":
        told += f" It is {found.low:.1%} or more for sure (95 %)."
    elif status == "cannot_tell":
        told += f" But it could be as low as {found.low:.1%}: too few pictures to tell{more(found, least)}."
        behind["pictures_needed"] = pictures_needed(found, least)
    return Check(name, status, found.value, least, found.low, found.high, found.n, told, behind)
