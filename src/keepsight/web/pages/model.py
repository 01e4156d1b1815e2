"""``/{project}/models/{number}``: what one model can and cannot do, where it came from, and what to decide about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from keepsight.data import samples
from keepsight.delivery import deployments
from keepsight.loop import decisions, runs
from keepsight.store.workspace import Workspace
from keepsight.training import models
from keepsight.training.reports import html, markdown, words
from keepsight.training.reports.content import Content
from keepsight.training.reports.document import document
from keepsight.training.reports.pictures import show_mistakes
from keepsight.web import abilities, looking, money
from keepsight.web.pages.common import Number, Project, Space, project_page
from keepsight.web.pages.pictures import KEEP_S
from keepsight.web.waiting import waiting

router = APIRouter(include_in_schema=False)

SHOWN_MISTAKES = 12
LONGEST_FIND = 200


@dataclass(frozen=True)
class View:
    """What of a page's parts was asked for."""

    sort: str
    find: str
    all: bool
    mistakes: int

    def address(self, **changes: Any) -> str:
        """The page with something else asked for; what is as delivered is left out."""
        asked = {"sort": self.sort, "find": self.find, "all": int(self.all), "mistakes": self.mistakes, **changes}
        plain = {"sort": "recall", "find": "", "all": 0, "mistakes": SHOWN_MISTAKES}
        return "?" + urlencode({name: value for name, value in asked.items() if value != plain[name]})


@router.get("/{project}/models/{number}")
def show(
    request: Request,
    ws: Space,
    project: Project,
    number: Number,
    *,
    sort: str = "recall",
    find: Annotated[str, Query(max_length=LONGEST_FIND)] = "",
    all: int = 0,
    mistakes: Annotated[int, Query(ge=0, le=1000)] = SHOWN_MISTAKES,
) -> Response:
    """Everything about one model."""
    order = sort if sort.removeprefix("-") in abilities.ORDERS else "recall"
    view = View(order, find.strip(), bool(all), mistakes)
    model = models.get(ws, project, number)
    return project_page(request, "model.html", project, active="models", page=_page(ws, model, view))


@router.get("/{project}/models/{number}/looked/{sample_id}")
def looked(ws: Space, project: Project, number: Number, sample_id: str, *, label: str | None = None) -> Response:
    """A picture of the data with what of it speaks for a class (else for the model's answer), as a JPEG."""
    model = models.get(ws, project, number)
    sample = samples.get(ws, project, sample_id)
    return Response(
        looking.overlay(ws, model, sample.picture_id, label=label),
        media_type="image/jpeg",
        headers={"cache-control": f"private, max-age={KEEP_S}"},
    )


@router.get("/{project}/models/{number}/report.html")
def report_page(ws: Space, project: Project, number: Number) -> Response:
    """The whole report as one file that needs no other, to keep or to send."""
    content = _content(ws, models.get(ws, project, number))
    return _file(html.render(document(content, shown=show_mistakes(ws, content))), project, number, "html")


@router.get("/{project}/models/{number}/report.md")
def report_text(ws: Space, project: Project, number: Number) -> Response:
    """The whole report as text."""
    content = _content(ws, models.get(ws, project, number))
    return _file(markdown.render(document(content)), project, number, "md")


def _file(text: str, project: str, number: int, kind: str) -> Response:
    # A file, not a page of ours: the report's own style would not be allowed here.
    name = f"{project}-model-{number}.{kind}"
    media = {"html": "text/html", "md": "text/markdown"}[kind]
    return Response(text, media_type=media, headers={"content-disposition": f'attachment; filename="{name}"'})


def _content(ws: Workspace, model: models.Model) -> Content:
    run = None if model.run_id is None else runs.get(ws, model.run_id)
    return Content.gather(ws, model, run=None if run is None else run.as_dict())


def _page(ws: Workspace, model: models.Model, view: View) -> dict[str, Any]:
    run = None if model.run_id is None else runs.get(ws, model.run_id)
    gate = None if run is None else run.gate
    record = (run.record if run is not None else None) or {}
    content = Content.gather(ws, model, run=None if run is None else run.as_dict())
    data = content.evaluation
    rows = abilities.classes(model.metrics, sort=view.sort, find=view.find)
    shown = rows if view.all or view.find else rows[: abilities.SHOWN_CLASSES]
    wrong = data.get("mistakes") or []
    calibration = data.get("calibration") or {}
    history = [row for row in deployments.history(ws, model.project) if row.model_number == model.number]
    return {
        "model": model,
        "run": run,
        "gate": gate,
        "asks": model.number in {item.number for item in waiting(ws, model.project)},
        "card": decisions.card(ws, model.project, model.number) if model.status == "challenger" else None,
        "back_to": deployments.before(ws, model.project),
        "passed": decisions.gate_passed(ws, model),
        "champion": models.champion(ws, model.project),
        "deployment": history[0] if history else None,
        "servers": len(deployments.live_servers(ws)),
        "history": history,
        "headline": words.summary(content),
        "figures": abilities.figures(content.task, model.metrics),
        "classes": shown,
        "class_total": sum(1 for row in (model.metrics.get("per_class") or {}).values() if row.get("support")),
        "class_hidden": len(rows) - len(shown),
        "confusions": [] if view.find else abilities.confusions(content),
        "sort": view.sort,
        "find": view.find,
        "address": view.address,
        "evaluation": data,
        "mistakes": wrong[: view.mistakes],
        "mistakes_total": len(wrong),
        "mistakes_hidden": max(0, len(wrong) - view.mistakes),
        "slices": abilities.slices(data.get("slices") or []),
        "robustness": content.robustness(),
        "before": abilities.dots((calibration.get("before") or {}).get("bins") or []),
        "after": abilities.dots((calibration.get("after") or {}).get("bins") or []),
        "facts": facts(record),
        "plan": record.get("plan"),
        "candidates": candidates(record),
        "money": None if run is None else money.of_run(ws, run),
    }


def facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where a model came from, in words."""
    plan = record.get("plan") or {}
    found: list[tuple[str, str]] = []
    if record.get("recipe"):
        chosen = f": {plan['chosen']} was chosen, because {plan['why']}" if plan.get("chosen") else ""
        found.append(("Recipe", f"{record['recipe']}{chosen}"))
    if record.get("backbone"):
        found.append(("Pretrained network", str(record["backbone"].get("name"))))
    pictures = record.get("pictures") or {}
    if pictures:
        learned, tested = pictures.get("training", 0), pictures.get("test", 0)
        recent = f", {pictures['recent']} recent checks" if pictures.get("recent") else ""
        found.append(("Pictures", f"{learned} to learn from, {tested} to test with{recent}"))
    return found


def candidates(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The recipes that were tried, with their share of right answers on held-out pictures."""
    tried = (record.get("out_of_fold") or {}).get("candidates") or {}
    chosen = (record.get("plan") or {}).get("chosen")
    return [
        {
            "name": name,
            "accuracy": None if figures is None else figures.get("accuracy"),
            "pictures": None if figures is None else figures.get("pictures"),
            "chosen": name == chosen,
        }
        for name, figures in tried.items()
    ]
