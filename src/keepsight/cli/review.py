"""``keepsight review``: next, answer, skip, undo, status."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from keepsight.cli.common import Json, Project, WorkspaceOption, actor, counted, opened, show
from keepsight.errors import BadInputError, StorageError

app = typer.Typer(help="Judge pictures that wait for a person.", no_args_is_help=True)
Event = Annotated[str, typer.Argument(help="The id that `review next` prints.", show_default=False)]


@app.command("next")
def next_item(
    project: Project,
    save: Annotated[Path | None, typer.Option(help="Write the picture to this file.", show_default=False)] = None,
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """The picture to judge next. Audits come without the model's answer."""
    from keepsight.review import queue

    with opened(workspace) as ws:
        item = queue.next_item(ws, ws.check_project(project), author=actor())
        if item is not None and save is not None:
            data = ws.blobs.get(item.picture_id)
            try:
                save.write_bytes(data)
            except OSError as error:
                raise StorageError(
                    f"{save} cannot be written: {error.strerror}.",
                    expected="a file name in a folder that exists and may be written to.",
                    do="Choose another with `--save`.",
                ) from None
    value: dict[str, Any] = {"item": None if item is None else item.as_dict()}

    def text() -> str:
        if item is None:
            return "Nothing waits: all pictures are judged."
        said = "" if item.prediction is None else f"\n  the model says: {item.prediction.get('label')}"
        saved = "" if save is None else f"\n  picture: {save}"
        return f"{item.event_id} ({item.selected_by}){said}{saved}"

    show(value, as_json=json, text=text)


@app.command("answer")
def answer(
    project: Project,
    event: Event,
    label: Annotated[str | None, typer.Argument(help="What the picture shows.", show_default=False)] = None,
    value: Annotated[
        str | None, typer.Option(help="The whole annotation as JSON, where a class does not say it all.")
    ] = None,
    new_class: Annotated[
        bool, typer.Option("--new-class", help="It is a class that the project does not know.")
    ] = False,
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Say what a picture shows; it becomes a label for the next training."""
    from keepsight.review import verdicts

    with opened(workspace) as ws:
        result = verdicts.answer(
            ws, ws.check_project(project), event, _raw(label, value), author=actor(), new_class=new_class
        )
    told = {True: "The model was right.", False: "The model was wrong."}[bool(result.correct)]
    told_as = {"item": result.item.as_dict(), "correct": result.correct, "counted": result.counted}
    show(told_as, as_json=json, text=lambda: told)


def _raw(label: str | None, value: str | None) -> Any:
    if (label is None) == (value is None):
        raise BadInputError(
            "Nothing was said of the picture." if label is None else "Both a label and --value were given.",
            expected="a label, or --value with the whole annotation.",
            do="Give one of them.",
        )
    if value is None:
        return {"label": label}
    import json as reader

    try:
        return reader.loads(value)
    except ValueError as error:
        raise BadInputError(
            f"--value is no JSON ({error}).", expected="the annotation as a JSON object.", do="Correct it."
        ) from None


@app.command("skip")
def skip(
    project: Project,
    event: Event,
    reason: Annotated[str, typer.Option(help="Why.")] = "cannot tell",
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Close a picture without a label."""
    from keepsight.review import verdicts

    with opened(workspace) as ws:
        result = verdicts.skip(ws, ws.check_project(project), event, author=actor(), reason=reason)
    show({"item": result.item.as_dict()}, as_json=json, text=lambda: "Skipped.")


@app.command("undo")
def undo(project: Project, workspace: WorkspaceOption = None, json: Json = False) -> None:
    """Take your last answer back."""
    from keepsight.review import verdicts

    with opened(workspace) as ws:
        item = verdicts.undo(ws, ws.check_project(project), author=actor())
    show({"item": item.as_dict()}, as_json=json, text=lambda: f"{item.event_id} waits again.")


@app.command("status")
def status(project: Project, workspace: WorkspaceOption = None, json: Json = False) -> None:
    """How many pictures wait."""
    from keepsight.review import queue

    with opened(workspace) as ws:
        counts = queue.counts(ws, ws.check_project(project))
    show(
        counts.as_dict(),
        as_json=json,
        text=lambda: (
            f"Waiting: {counted(counts.waiting, 'picture')}, {counted(counts.audits_waiting, 'audit')} among them."
        ),
    )
