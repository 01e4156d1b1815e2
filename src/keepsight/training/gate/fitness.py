"""Checks of what else a release must be: honest about its doubts, robust, quick, small, and lawful."""

from __future__ import annotations

from typing import Any

import numpy as np

from keepsight.tasks.intervals import Interval
from keepsight.training.gate.comparison import changes, names_of, one_sided
from keepsight.training.gate.evidence import Evidence, Settings, verb_of
from keepsight.training.gate.figures import fallen
from keepsight.training.gate.results import Check, Status, unknown

INT8 = "int8"
WHOLE = "all test pictures"
REQUIRED = "required"
# What stands for a licence where nobody stated one.
NO_LICENCE = "licenseref-unknown"


def calibration(evidence: Evidence, settings: Settings) -> list[Check]:
    """``gate.max_ece``: the expected calibration error on test, by its interval.

    The estimate itself is biased upwards with few pictures and the interval is corrected for that, so the interval
    alone decides: it fails where even the lower bound is too large.
    """
    most = settings["gate.max_ece"]
    if most is None:
        return []
    figure = evidence.metrics.get("ece")
    found = Interval(None, 0.0, 1.0, 0) if figure is None else one_sided(figure)
    if found.value is None:
        told = f"There are no test pictures that could show a calibration error of at most {most:.1%}."
        return [unknown("calibration", most, told)]
    status: Status = "pass" if found.high <= most else "fail" if found.low > most else "cannot_tell"
    told = (
        f"The confidence is off by {found.value:.1%} on average on {found.n} test pictures "
        f"({found.low:.1%} to {found.high:.1%} without the error that so few pictures add); "
        f"at most {most:.1%} is allowed."
    )
    if status == "cannot_tell":
        told += " It may be either: too few pictures to tell."
    return [Check("calibration", status, found.value, most, found.low, found.high, found.n, told)]


def robustness(evidence: Evidence, settings: Settings) -> list[Check]:
    """``gate.min_robustness``: the share of its clean accuracy kept under every disturbance, by the lower bound."""
    least = settings["gate.min_robustness"]
    if least is None:
        return []
    rows = [row for row in (evidence.evaluation or {}).get("robustness") or [] if row.get("kept") is not None]
    if not rows:
        return [unknown("robustness", least, "Nobody measured how the new model fares on disturbed pictures.")]
    severity = {"fail": 0, "cannot_tell": 1, "pass": 2}
    judged = sorted((_kept(row, least) for row in rows), key=lambda row: (severity[row["status"]], row["kept"]))
    worst = judged[0]
    told = f"Of its accuracy the new model keeps {worst['kept']:.1%} when pictures are {worst['words']}"
    told += f", the worst of {len(judged)} disturbances; at least {least:.1%} is asked for."
    if worst["status"] == "cannot_tell":
        told += f" But it could be as little as {worst['low']:.1%}: too few pictures to tell."
    elif worst["status"] == "pass":
        told += f" It is {worst['low']:.1%} or more for sure (95 %)."
    return [
        Check(
            "robustness",
            worst["status"],
            worst["kept"],
            least,
            worst["low"],
            worst["high"],
            worst["n"],
            told,
            {"disturbances": judged},
        )
    ]


def _kept(row: dict[str, Any], least: float) -> dict[str, Any]:
    """One disturbance; the clean accuracy is that of the same pictures and taken as it is."""
    disturbed, clean = one_sided(row["accuracy"]), float(row["clean"]["value"] or 0.0)
    kept, low, high = (float(row["kept"]), disturbed.low / clean, disturbed.high / clean) if clean else (0.0, 0.0, 0.0)
    status: Status = "pass" if low >= least else "fail" if kept < least else "cannot_tell"
    words = str(row["name"]).replace("_", " ")
    return {
        "name": row["name"],
        "words": words,
        "kept": kept,
        "low": low,
        "high": high,
        "n": int(row["n"]),
        "status": status,
    }


def latency(evidence: Evidence, settings: Settings) -> list[Check]:
    """``gate.max_latency_ms``: the median time for a picture on this machine, as measured."""
    longest, measured = settings["gate.max_latency_ms"], evidence.latency_ms
    if longest is None:
        return []
    if measured is None:
        return [unknown("latency", longest, f"Nobody measured whether a picture takes at most {longest:g} ms.")]
    good = measured <= longest
    told = f"A picture takes {measured:.1f} ms; at most {longest:g} ms are {'asked for' if good else 'allowed'}."
    behind = {"variant": evidence.variant, "champion_ms": evidence.champion_latency_ms}
    return [Check("latency", "pass" if good else "fail", measured, longest, None, None, 0, told, behind)]


def size(evidence: Evidence, settings: Settings) -> list[Check]:
    """``gate.max_size_mb``: the network file that is to be served."""
    most = settings["gate.max_size_mb"]
    if most is None:
        return []
    if evidence.size_bytes is None:
        return [unknown("size", most, f"Nobody knows whether the network has at most {most:g} MB.")]
    found = evidence.size_bytes / 1e6
    good = found <= most
    told = f"The network has {found:.1f} MB; at most {most:g} MB are {'asked for' if good else 'allowed'}."
    behind = {"bytes": evidence.size_bytes, "variant": evidence.variant}
    return [Check("size", "pass" if good else "fail", found, most, None, None, 0, told, behind)]


def int8_parity(evidence: Evidence, settings: Settings) -> list[Check]:
    """``gate.max_int8_drop``: the 8-bit network loses no more recall in any class, nor in all, than the float one.

    It decides only where the 8-bit network is the one to be served; else it is told.
    """
    served = evidence.variant == INT8
    allowed = settings["gate.max_int8_drop"]
    if evidence.int8 is None:
        told = "The 8-bit network is to be served (serving.variant), but the new model has none."
        return [unknown(INT8, -allowed, told)] if served else []
    test, both = evidence.test, evidence.int8
    parts = {WHOLE: np.ones(len(test), np.bool_), **{label: test.rows_of(label) for label in test.names}}
    found = changes(parts, both.float_scores, both.int8_scores, groups=test.groups, allowed=allowed)
    if not found:
        told = "There are no test pictures on which the 8-bit network can be compared with the float one."
        return [unknown(INT8, -allowed, told, binding=served)]
    check = fallen(INT8, "parts", found, allowed=allowed, binding=served)
    whole = next(change for change in found if change.name == WHOLE)
    told = (
        f"As an 8-bit network the new model {verb_of(both.int8_scores)} {whole.after:.1%} of {WHOLE}, "
        f"as a float one on {whole.before:.1%}. {check.reason}"
    )
    return [_with_reason(check, told if served else told + " The float one is served.")]


def _with_reason(check: Check, reason: str) -> Check:
    return Check(**{**{name: getattr(check, name) for name in Check.__dataclass_fields__}, "reason": reason})


def licences(evidence: Evidence, settings: Settings) -> list[Check]:
    """``gate.licences``: every licence of the weights is one of these, or of those that the program itself offers.

    A licence that nobody stated decides only where the setting names some.
    """
    named = list(settings["gate.licences"])
    allowed = {name.casefold() for name in (named or evidence.known_licences)}
    stated = [name for name in evidence.licences if name.casefold() != NO_LICENCE]
    wrong = [name for name in stated if name.casefold() not in allowed]
    behind = {"licences": list(evidence.licences), "allowed": named or sorted(evidence.known_licences)}
    if wrong:
        whose = "gate.licences allows" if named else "without gate.licences the following are taken"
        told = f"The weights stand under {names_of(wrong)}; {whose}: {names_of(behind['allowed'])}."
        return [Check("licences", "fail", None, None, None, None, 0, told, behind)]
    if not stated or len(stated) < len(evidence.licences):
        told = "Nobody stated the licence of the weights."
        return [unknown("licences", None, told, binding=bool(named), evidence=behind)]
    told = f"The weights stand under {names_of(stated)}, which is allowed."
    return [Check("licences", "pass", None, None, None, None, 0, told, behind)]


def consent(evidence: Evidence, settings: Settings) -> list[Check]:
    """``privacy.consent``: nobody can show the consent of the pictures where no ledger of it is kept."""
    required = settings["privacy.consent"] == REQUIRED
    without = evidence.without_consent
    if without is None:
        told = "No ledger of consent is kept, so nobody can tell whether the pictures may be used."
        told += " privacy.consent asks for it." if required else " Nothing asks for it (privacy.consent is optional)."
        return [unknown("consent", None, told, binding=required)]
    told = f"The consent of {without} pictures cannot be shown." if without else "Every picture may be used."
    status: Status = "fail" if without else "pass"
    return [Check("consent", status, float(without), 0.0, None, None, without, told, {}, required)]
