"""``keepsight models``: list, show, report, evaluate, compare, promote, rollback, discard, export, reproduce."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keepsight.cli.common import (
    Json,
    Project,
    Reason,
    WorkspaceOption,
    actor,
    counted,
    interval,
    opened,
    progress_bar,
    show,
    table,
    when,
)

if TYPE_CHECKING:
    from keepsight.training.reports.content import Content

app = typer.Typer(help="Models: list, show, release, go back.", no_args_is_help=True)
Number = Annotated[int | None, typer.Argument(help="Model number; else the live one.", show_default=False)]
# Of long lists so many lines are shown; --all shows the rest.
FEW = 12
ThisNumber = Annotated[int, typer.Argument(help="Model number.", show_default=False)]


@app.command("list")
def list_models(project: Project, workspace: WorkspaceOption = None, json: Json = False) -> None:
    """All models of a project, newest first."""
    from keepsight import tasks
    from keepsight.training import models

    with opened(workspace) as ws:
        rows = models.list_models(ws, ws.check_project(project))
        task = ws.settings(project)["task"]
    head = ("model", "status", tasks.get(task).HEADLINE.replace("_", " "), "dataset", "made")
    lines = [
        (row.number, row.status, interval(tasks.headline(task, row.metrics)), row.dataset_version, when(row.created_at))
        for row in rows
    ]
    show(
        [row.as_dict() for row in rows],
        as_json=json,
        text=lambda: table(head, lines, empty=f"No models yet: keepsight train {project}"),
    )


@app.command("show")
def show_model(
    project: Project,
    number: Number = None,
    everything: Annotated[bool, typer.Option("--all", help="All classes, slices and confusions.")] = False,
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """One model: how good it is, where it is weak, what it confuses, its run and its gate."""
    from keepsight.loop import assessment

    with opened(workspace) as ws:
        content = assessment.content(ws, ws.check_project(project), number)
    run = content.run
    kept = ("id", "record", "gate", "outcome")
    value = {
        **content.model.as_dict(),
        "evaluation": dict(content.evaluation) or None,
        "run": None if run is None else {name: run[name] for name in kept},
    }
    show(value, as_json=json, text=lambda: _told(content, most=None if everything else FEW))


@app.command("report")
def report(
    project: Project,
    number: Number = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for report.md and report.html.")] = Path(),
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Write a model's report: report.md, and report.html with plots and pictures of its mistakes.

    The page needs nothing else and asks no other machine for anything. It shows pictures of your data: mind who gets
    it, and that a picture erased later stays in a file that is already written.
    """
    from keepsight.loop import assessment
    from keepsight.training.reports import written

    with opened(workspace) as ws, progress_bar(quiet=json) as progress:
        content = assessment.content(ws, ws.check_project(project), number)
        files = written.write(ws, content, out, progress=progress)
    value = {"project": project, "number": content.model.number, "files": [str(path) for path in files]}
    show(value, as_json=json, text=lambda: "\n".join(f"Wrote {path}" for path in files))


@app.command("evaluate")
def evaluate(project: Project, number: Number = None, workspace: WorkspaceOption = None, json: Json = False) -> None:
    """Evaluate a model again on its dataset version: slices, calibration, robustness, mistakes."""
    from keepsight.loop import assessment

    with opened(workspace) as ws, progress_bar(quiet=json) as progress:
        assessment.evaluate_again(ws, ws.check_project(project), number, progress)
        content = assessment.content(ws, project, number)
    value = {"project": project, "number": content.model.number, "evaluation": dict(content.evaluation)}
    show(value, as_json=json, text=lambda: _told(content, most=FEW))


def _told(content: Content, *, most: int | None) -> str:
    """A model for people; of long lists the worst ``most``."""
    import textwrap

    from keepsight.training.reports import words

    model = content.model
    lines = [
        f"Model {model.number} of {content.project}: {model.status}, made {when(model.created_at)}",
        f"  dataset version {model.dataset_version}, bundle {model.bundle_digest[:16]}",
        "",
        *textwrap.wrap(words.summary(content), 110),
    ]
    figures = [(name, interval(figure)) for name, figure in content.figures()]
    found = content.evaluation.get("latency_ms")
    if found:
        figures.append(("latency", f"{found['p50']:.1f} ms (95 % within {found['p95']:.1f} ms)"))
    if figures:
        lines += ["", *(f"  {name}: {text}" for name, text in figures)]
    classes = [
        (name, interval(row["precision"]), interval(row["recall"]), interval(row["f1"]), row["support"])
        for name, row in content.per_class()
    ]
    lines += _listed("Classes, the weakest first", ("class", "precision", "recall", "f1", "pictures"), classes, most)
    slices = [
        (words.slice_name(row), interval(row["accuracy"]), words.points(row["difference"]), row["n"])
        for row in content.slices()
    ]
    lines += _listed(
        "Parts of the pictures, the weakest first", ("slice", "right", "points to the rest", "pictures"), slices, most
    )
    card = [
        (row["text"], interval(row["accuracy"]), words.percent(row["kept"]), row["n"]) for row in content.robustness()
    ]
    lines += _listed("Pictures made worse", ("pictures are", "right", "kept", "pictures"), card, None)
    calibration = content.evaluation.get("calibration")
    if calibration:
        lines += ["", "Confidence", *textwrap.wrap(words.calibration(calibration), 110)]
    lines += _listed("Confusions", ("pictures of", "taken for", "times"), content.confusions(), most)
    if content.gate is not None:
        lines += ["", f"Gate: {words.DECISIONS.get(content.gate['decision'], content.gate['decision'])}"]
        lines += [f"  gate {check['name']}: {check['status']} - {check['reason']}" for check in content.gate["checks"]]
    if not content.evaluation:
        lines += ["", f"Not evaluated further; do so with: keepsight models evaluate {content.project} {model.number}"]
    return "\n".join(lines)


def _listed(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]], most: int | None) -> list[str]:
    """A titled table of the first rows, and how many more there are."""
    if not rows:
        return []
    shown = rows if most is None else rows[:most]
    more = [f"... and {len(rows) - len(shown)} more: --all"] if len(rows) > len(shown) else []
    return ["", title, table(head, shown, empty=""), *more]


@app.command("compare")
def compare(project: Project, number: ThisNumber, workspace: WorkspaceOption = None, json: Json = False) -> None:
    """A model beside the live one, in plain words: what gets better, what gets worse, and what nobody can tell."""
    from keepsight.loop import decisions

    with opened(workspace) as ws:
        card = decisions.card(ws, ws.check_project(project), number)
    show(card, as_json=json, text=lambda: _card(card))


@app.command("promote")
def promote(
    project: Project,
    number: ThisNumber,
    reason: Reason = "",
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Release a model. Where its gate did not pass, a reason is needed."""
    from keepsight.loop import decisions

    with opened(workspace) as ws:
        made = decisions.promote(ws, ws.check_project(project), number, actor=actor(), reason=reason)
    show(made.as_dict(), as_json=json, text=lambda: f"Model {number} of {project} is released.")


@app.command("rollback")
def rollback(
    project: Project, reason: Reason = "rolled back by hand", workspace: WorkspaceOption = None, json: Json = False
) -> None:
    """Serve again the model that was live before."""
    from keepsight.delivery import deployments

    with opened(workspace) as ws:
        made = deployments.rollback(ws, ws.check_project(project), actor=actor(), reason=reason)
    show(made.as_dict(), as_json=json, text=lambda: f"Model {made.model_number} of {project} is live again.")


@app.command("discard")
def discard(
    project: Project,
    number: ThisNumber,
    reason: Reason = "discarded by hand",
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Take a challenger out of the choice."""
    from keepsight.loop import decisions

    with opened(workspace) as ws:
        decisions.discard(ws, ws.check_project(project), number, actor=actor(), reason=reason)
    show(
        {"project": project, "number": number, "status": "discarded"},
        as_json=json,
        text=lambda: f"Model {number} of {project} is discarded.",
    )


@app.command("export")
def export(
    project: Project,
    target: Annotated[Path, typer.Argument(help="Folder, or a .zip file.", show_default=False)],
    number: Annotated[int | None, typer.Option(help="Model number; else the live one.")] = None,
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Write a model's bundle to disk, for `predict`, `serve --bundle` or another machine.

    A bundle with a gallery is written with the gallery as it is now.
    """
    from keepsight.data.gallery import bundles
    from keepsight.training import models

    with opened(workspace) as ws:
        model = models.find(ws, ws.check_project(project), number)
        bundle = bundles.with_changes(ws, project, models.load_bundle(ws, model), number=model.number)
    if target.suffix == ".zip":
        bundle.to_zip(target)
    else:
        bundle.save(target)
    value = {"project": project, "number": model.number, "path": str(target), "digest": bundle.digest}
    show(value, as_json=json, text=lambda: f"Wrote model {model.number} of {project} to {target}.")


@app.command("mirror")
def mirror_models(workspace: WorkspaceOption = None, json: Json = False) -> None:
    """Write to MLflow (mlflow.url) what it lacks: ended runs, models, and the aliases champion and challenger."""
    from keepsight.loop import mirror

    with opened(workspace) as ws, progress_bar(quiet=json) as progress:
        written = mirror.catch_up(ws, progress)
    runs, models = counted(written["runs"], "run"), counted(written["models"], "model")
    show(written, as_json=json, text=lambda: f"Wrote {runs} and {models} more to MLflow at {written['url']}.")


@app.command("fetch")
def fetch(project: Project, workspace: WorkspaceOption = None, json: Json = False) -> None:
    """Make the live model of the registry (registry.url) the live one here, such as one trained on a rented machine."""
    from keepsight.loop import rented

    with opened(workspace) as ws:
        number = rented.fetch(ws, ws.check_project(project), actor=actor())
    told = "The registry has no live model yet." if number is None else f"Model {number} of {project} is live here."
    show({"project": project, "number": number}, as_json=json, text=lambda: told)


@app.command("reproduce")
def reproduce(
    project: Annotated[str, typer.Argument(help="Project, or PROJECT@NUMBER.", show_default=False)],
    number: Number = None,
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> int:
    """Replay a model's run from its record and compare. Exit code 1 where it comes out differently."""
    from keepsight.loop.replay import replay

    name, named = _named(project)
    with opened(workspace) as ws:
        result = replay(ws, ws.check_project(name), named if number is None else number)

    def text() -> str:
        if result["same"]:
            told = f"the same model, digest for digest ({result['digest'][:16]})"
        elif result["agrees"]:
            told = "another digest, as accurate within half a point: a fine-tune that agrees"
        else:
            told = f"another model than the recorded one ({result['digest'][:16]})"
        points = ", ".join(f"{key} {value * 100:+.1f} points" for key, value in result["differences"].items())
        return f"Replayed model {result['number']}: {told}." + (f"\n  {points}" if points else "")

    show(result, as_json=json, text=text)
    return 0 if result["agrees"] else 1


def _named(project: str) -> tuple[str, int | None]:
    """The project and the model of ``shop@7``; no model where none is named."""
    name, separator, number = project.partition("@")
    if not separator:
        return name, None
    if not number.isdigit():
        from keepsight.errors import BadInputError

        raise BadInputError(f'"{project}" names no model.', expected="PROJECT@NUMBER.", do="Write it like shop@7.")
    return name, int(number)


def _card(card: Mapping[str, Any]) -> str:
    lines = [card["question"], *(f"  {line}" for line in card["summary"])]
    if card["stale"]:
        now = "no model is" if card["live"] is None else f"model {card['live']} is"
        lines.append(f"  The comparison is out of date: {now} live by now.")
    new, old = card["sides"]["challenger"], card["sides"]["champion"]
    rows = [
        ("model", new["number"], "-" if old is None else old["number"]),
        *(
            (f"right on {name}", interval(figure), "-" if old is None else interval(old["accuracy"].get(name)))
            for name, figure in new["accuracy"].items()
        ),
        *(
            (word, *("-" if side is None or side[key] is None else f"{side[key]:.1f}" for side in (new, old)))
            for key, word in (("latency_ms", "ms for a picture"), ("size_mb", "MB"))
        ),
        ("made", *("-" if side is None else when(side["made"]) for side in (new, old))),
    ]
    lines.append(table(("", "new", "compared with"), rows, empty=""))
    for key, head in (("better", "Better:"), ("worse", "Worse:")):
        if card[key]:
            lines += [head, *(f"  {row['text']}" for row in card[key])]
    for key, head in (
        ("failed", "Not passed:"),
        ("unsure", "Nobody can tell:"),
        ("passed", "Passed:"),
        ("told", "Told only:"),
    ):
        if card[key]:
            lines += [head, *(f"  {check['name']}: {check['reason']}" for check in card[key])]
    if card["can"]["release"]:
        project, number = card["project"], card["model"]
        reason = ' --reason "..."' if card["needs_reason"] else ""
        lines.append(f"Release it: keepsight models promote {project} {number}{reason}")
        lines.append(f"Or not:     keepsight models discard {project} {number}")
    return "\n".join(lines)
