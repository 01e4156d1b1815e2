"""How a project does, in one plain sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keepsight.monitoring import watch
from keepsight.review import queue
from keepsight.store.workspace import Workspace
from keepsight.web import figures
from keepsight.web.render import percent, plural

# An interval this wide says too little to call a model good.
WIDE = 0.2


@dataclass(frozen=True)
class Standing:
    """What the overview tells of a project.

    ``mood`` is ``good``, ``look`` (a person should look), ``unknown`` (too little is known) or ``none`` (no model).
    """

    project: str
    mood: str
    headline: str
    sentence: str
    drift: str
    status: Mapping[str, Any]
    today: int
    waiting: int
    alerts: int
    model: int | None


def standing(ws: Workspace, project: str) -> Standing:
    """How the project stands now."""
    status = watch.status(ws, project)
    mood, headline = _mood(status)
    return Standing(
        project=project,
        mood=mood,
        headline=headline,
        sentence=_sentence(status),
        drift=drift_words(status["drift"]),
        status=status,
        today=figures.pictures_since(ws, project, figures.day_start(ws.clock())),
        waiting=queue.counts(ws, project).waiting,
        alerts=len(status["alerts"]),
        model=status["model"],
    )


def drift_words(drift: Mapping[str, Any]) -> str:
    """What the drift alarm says, in words."""
    if not drift["watched"]:
        return "Changes are not watched: this model came without pictures to compare with."
    if drift["alarm"]:
        return "The pictures have changed since the model learned."
    if not drift["units"]:
        return "No pictures to compare yet."
    if drift["limit"] and drift["evidence"] > drift["limit"] ** 0.5:
        return "There are first signs of a change; not enough to be sure."
    return "The pictures look like those that the model learned from."


def _mood(status: Mapping[str, Any]) -> tuple[str, str]:
    figure = status["accuracy"]
    kinds = {alert["kind"] for alert in status["alerts"]}
    if status["model"] is None:
        return "none", "has no model yet"
    if kinds:
        return "look", "needs a look"
    if not figure["n_answered"]:
        return "unknown", "is running, not yet checked"
    if figure["high"] - figure["low"] > WIDE:
        return "unknown", "looks fine so far"
    return "good", "is doing well"


def _sentence(status: Mapping[str, Any]) -> str:
    figure = status["accuracy"]
    if status["model"] is None:
        return "Import labelled pictures and train; the first model that passes its checks goes live."
    if not figure["n_answered"]:
        waits = figure["n_unanswered"]
        return (
            f"{plural(waits, 'picture waits', 'pictures wait')} for a blind check; until some are answered, "
            "nobody knows how often the model is right."
            if waits
            else "As soon as people have checked some pictures, you will see here how often the model is right."
        )
    few = " That is a wide range: a few more checks will narrow it." if figure["high"] - figure["low"] > WIDE else ""
    return (
        f"People checked {plural(figure['n_answered'], 'picture')} without seeing the answer: the model got "
        f"{percent(figure['value'])} right (most likely between {percent(figure['low'])} and "
        f"{percent(figure['high'])} of all pictures).{few}"
    )
