"""The answers to the frames of a video, merged: one segment for each stretch with the same answer."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any


def segments(answers: Sequence[Mapping[str, Any]], *, seconds: float) -> list[dict[str, Any]]:
    """Stretches of frames with equal answers, in their order.

    A segment is ``{"label", "start", "end", "frames", "confidence", "surest", "worst", "decision"}``: it ends where the
    next begins; ``confidence`` is the mean; ``surest`` and ``worst`` are the frames with the highest and the lowest;
    ``decision`` is "review" where one of its frames needs a person. A frame without an answer ends a segment.

    Args:
        answers: Each with ``second``, ``label``, ``confidence`` and ``decision``, or with ``error``.
        seconds: Length of the video.
    """
    found: list[list[Mapping[str, Any]]] = []
    before = None
    for answer in answers:
        label = None if "error" in answer else answer["label"]
        if label is not None:
            if label == before:
                found[-1].append(answer)
            else:
                found.append([answer])
        before = label
    times = [answer["second"] for answer in answers]
    starts = {id(group): group[0]["second"] for group in found}
    result = []
    for group in found:
        last = group[-1]["second"]
        after = bisect.bisect_right(times, last)
        by_confidence = sorted(group, key=lambda answer: answer["confidence"])
        result.append(
            {
                "label": group[0]["label"],
                "start": starts[id(group)],
                "end": times[after] if after < len(times) else max(seconds, last),
                "frames": len(group),
                "confidence": sum(answer["confidence"] for answer in group) / len(group),
                "surest": _place(by_confidence[-1]),
                "worst": _place(by_confidence[0]),
                "decision": "review" if any(answer["decision"] == "review" for answer in group) else "auto",
            }
        )
    return result


def _place(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in ("second", "confidence")}
