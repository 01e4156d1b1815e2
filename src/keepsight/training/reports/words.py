"""Figures in plain words, for somebody who runs a shop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keepsight.training.reports.content import Content

# A smaller loss on bad pictures is none to speak of.
LOSS = 0.02
DECISIONS: Mapping[str, str] = {
    "deploy": "All checks passed.",
    "ask": "The checks cannot tell: a person decides.",
    "reject": "Not good enough to be released.",
}
STATUSES: Mapping[str, str] = {
    "pass": "passed",
    "fail": "not passed",
    "cannot_tell": "cannot tell",
    "told": "decides nothing",
}
# Below so many test pictures of a class, its figures say little.
FEW = 10


def of_100(share: float) -> str:
    """``91 of 100``; what rounds to all or nothing without being it keeps a digit."""
    whole = round(100 * share)
    return f"{100 * share:.1f} of 100" if whole in {0, 100} and share not in {0.0, 1.0} else f"{whole} of 100"


def percent(share: float | None) -> str:
    """``91.3 %``, or a dash."""
    return "–" if share is None else f"{100 * share:.1f} %"


def span(figure: Mapping[str, Any] | None) -> str:
    """``91.3 % (89.0 to 93.1)``, or a dash where nothing was measured."""
    if figure is None or figure.get("value") is None:
        return "–"
    return f"{100 * figure['value']:.1f} % ({100 * figure['low']:.1f} to {100 * figure['high']:.1f})"


def points(figure: Mapping[str, Any] | None) -> str:
    """A difference of shares in points: ``-4.2 (-8.0 to -0.5)``."""
    if figure is None or figure.get("value") is None:
        return "–"
    return f"{100 * figure['value']:+.1f} ({100 * figure['low']:+.1f} to {100 * figure['high']:+.1f})"


def pictures(count: int) -> str:
    """``1 picture``, ``1,203 pictures``."""
    return f"{count:,} picture{'' if count == 1 else 's'}"


def size(size_bytes: int) -> str:
    """``18.8 MB``."""
    return f"{size_bytes / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """``45 s``, ``7 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def summary(content: Content) -> str:
    """The model in one paragraph: how good, where weak, what it confuses, what it does not bear."""
    name, found = f"Model {content.model.number}", content.headline
    if found is None or found.get("value") is None:
        return (
            f"{name} was never tried on test pictures, so nothing can be said about how good it is. "
            "Add labelled pictures to the test split and train again."
        )
    said = [
        f"{name} is right on {of_100(found['value'])} test pictures "
        f"({pictures(found['n'])}; 95 % sure that it is between {of_100(found['low'])} and {of_100(found['high'])})."
        if "accuracy" in content.metrics
        else f"{name} reaches {span(found)} on {pictures(found['n'])}."
    ]
    said += [sentence for sentence in (_classes(content), _slices(content), _robustness(content)) if sentence]
    unknown = content.evaluation.get("unknown", {})
    if unknown:
        said.append(f"{_listed(sorted(unknown))} it never learned: its training pictures show no such class.")
    return " ".join(said)


def _classes(content: Content) -> str:
    """What it finds least, and what it confuses most."""
    said = ""
    rows = [(name, row) for name, row in content.per_class() if row["support"] >= FEW]
    rows = [(name, row) for name, row in rows if (row["recall"]["value"] or 0) < 1]
    if rows:
        name, row = min(rows, key=lambda item: (item[1]["recall"]["value"], -item[1]["support"]))
        hits = round(row["recall"]["value"] * row["support"])
        whole = pictures(row["support"]) if "accuracy" in content.metrics else f"{row['support']}"
        said = f'Of the classes it is weakest on "{name}": it finds {hits} of {whole}.'
    confused = content.confusions()
    if confused:
        true, told, count = confused[0]
        said += f' Most often it takes "{true}" for "{told}" ({pictures(count)}).'
    return said.strip()


def _slices(content: Content) -> str:
    """The part of the pictures on which it is clearly worse."""
    worse = [row for row in content.slices() if row.get("clear") and row["difference"]["value"] < 0]
    if not worse:
        return ""
    row = worse[0]
    return f"It is clearly worse where {slice_name(row)}: right on {of_100(row['accuracy']['value'])} there."


def _robustness(content: Content) -> str:
    """What costs it most."""
    rows = [row for row in content.robustness() if row["accuracy"]["value"] is not None]
    if not rows or rows[0]["clean"]["value"] is None:
        return ""
    row = rows[0]
    clean, left = row["clean"]["value"], row["accuracy"]["value"]
    if clean - left < LOSS:
        return "Dark, blurred, tilted or covered pictures cost it next to nothing."
    return f"It loses most when pictures are {row['text']}: from {of_100(clean)} to {of_100(left)}."


def slice_name(row: Mapping[str, Any]) -> str:
    """``camera is door``; what was measured on the pictures reads as a sentence too."""
    return f"{row['key']} is {row['value']}"


def status(check: Mapping[str, Any]) -> str:
    """The key of ``STATUSES`` for a check of the gate; one that does not bind and did not pass is only told."""
    told = not check.get("binding", True) and check["status"] != "pass"
    return "told" if told else str(check["status"])


def calibration(found: Mapping[str, Any]) -> str:
    """What calibration did."""
    before, after = (found["before"] or found["after"])["ece"], found["after"]["ece"]
    if before is None or after is None:
        return "Without test pictures nothing can be said about its confidence."
    changed = "Calibration changed little"
    if abs(before - after) >= 0.005:
        changed = f"Before calibration it was {100 * before:.1f} points"
    return (
        f"When the model says it is 80 % sure, it should be right 80 times in 100. On average its confidence is "
        f"{100 * after:.1f} points off. {changed} (temperature {found['temperature']:.2f})."
    )


def run(content: Content) -> list[tuple[str, str]]:
    """How the model was made: what, and the answer in words."""
    row, record = content.run or {}, content.record
    said: list[tuple[str, str]] = []
    if row:
        said.append(("started by", f"{row['trigger']}: {row['reason']}" if row.get("reason") else str(row["trigger"])))
    if content.model.dataset_version is not None:
        counts = record.get("pictures", {})
        told = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
        said.append(("dataset version", f"{content.model.dataset_version}" + (f" ({told})" if told else "")))
    if "recipe" in record:
        said.append(("recipe", str(record["recipe"])))
    if "backbone" in record:
        said.append(("backbone", str(record["backbone"]["name"])))
    said += [(name.replace("_", " "), _short(value)) for name, value in plan(record).items()]
    said += _budget(row, record)
    if "seed" in record:
        said.append(("seed", str(record["seed"])))
    said.append(("bundle", content.model.bundle_digest[:16]))
    return said


def plan(record: Mapping[str, Any]) -> dict[str, Any]:
    """The choices of the plan that fit on a line; lists of what was tried do not."""
    left_out = {"recipe", "seed", "candidates"}
    chosen = (record.get("plan") or {}).items()
    return {
        name: value
        for name, value in chosen
        if name not in left_out and isinstance(value, str | int | float | bool) and len(str(value)) <= 60
    }


def _budget(row: Mapping[str, Any], record: Mapping[str, Any]) -> list[tuple[str, str]]:
    params, settings = row.get("params") or {}, record.get("settings") or {}
    said = []
    minutes = params.get("budget_minutes", settings.get("train.budget_minutes"))
    most = params.get("max_cost_eur", settings.get("train.max_cost_eur"))
    allowed = [f"{minutes:g} min"] if minutes is not None else []
    allowed += [f"{most:g} EUR"] if most is not None else []
    if allowed:
        said.append(("budget", " and ".join(allowed)))
    worked = record.get("worked_s")
    seconds = sum(worked.values()) if isinstance(worked, Mapping) else record.get("train_s")
    if seconds is not None:
        said.append(("worked", duration(float(seconds))))
    if record.get("cost_eur") is not None:
        said.append(("cost", f"{float(record['cost_eur']):.4f} EUR"))
    return said


def _short(value: Any) -> str:
    return (
        f"{value:.4g}"
        if isinstance(value, float)
        else "yes"
        if value is True
        else "no"
        if value is False
        else str(value)
    )


def _listed(names: Sequence[str], most: int = 3) -> str:
    quoted = [f'"{name}"' for name in names[:most]]
    rest = len(names) - most
    if rest > 0:
        return ", ".join(quoted) + f" and {rest} more"
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + f" and {quoted[-1]}"
