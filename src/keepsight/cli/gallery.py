"""``keepsight enrol`` and ``keepsight gallery``: list, remove."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from keepsight.cli.common import Json, Project, Reason, WorkspaceOption, actor, counted, opened, show, table

app = typer.Typer(help="Who is known to a recognition project, and taking them out.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Who or what it is.", show_default=False)]


def register(main: typer.Typer) -> None:
    """Adds ``enrol``."""
    main.command("enrol")(enrol)


def enrol(
    project: Project,
    name: Name,
    pictures: Annotated[list[Path], typer.Argument(help="Picture files, one subject in each.", show_default=False)],
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> int:
    """Add pictures of somebody, or something, to the gallery: running servers know them within a second."""
    from keepsight.data import gallery
    from keepsight.data.gallery import enrolling
    from keepsight.errors import BadInputError, KeepsightError
    from keepsight.loop import galleries

    done: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    with opened(workspace) as ws:
        gallery.check(ws, project)
        live = galleries.live_engine(ws, project)
        engine = live or galleries.checking_engine(ws, project)
        for path in pictures:
            try:
                try:
                    data = path.read_bytes()
                except OSError as error:
                    raise BadInputError(
                        f"{path} cannot be read: {error.strerror}.", expected="a picture file.", do="Check the path."
                    ) from None
                found = enrolling.enrol(
                    ws, project, name, data, engine=engine, live=live is not None, actor=actor(), file_name=path.name
                )
                done.append({"picture": str(path), **found.as_dict()})
            except KeepsightError as error:
                failed.append({"picture": str(path), **error.as_dict()})

    def text() -> str:
        lines = [f"{name}: {counted(len(done), 'picture')} enrolled."] if done else []
        lines += [f"  not taken: {item['picture']}: {item['error']['found']} {item['error']['do']}" for item in failed]
        if done and live is None:
            lines.append(f"No model is live yet. Next: keepsight train {project}")
        elif done:
            lines.append("Running servers know them within a second.")
        return "\n".join(lines)

    show({"enrolled": done, "failed": failed}, as_json=json, text=text)
    return 1 if failed else 0


@app.command("list")
def list_gallery(project: Project, workspace: WorkspaceOption = None, json: Json = False) -> None:
    """Everybody whom the live model knows, with how many pictures, and the similarity that it asks for."""
    from keepsight.loop import galleries

    with opened(workspace) as ws:
        found = galleries.overview(ws, project)

    def text() -> str:
        lines = [(name, views) for name, views in found.names.items()]
        told = table(("name", "pictures"), lines, empty="Nobody is enrolled.")
        if found.model is None:
            return f"{told}\nNo model is live yet; these are in the data set. Next: keepsight train {project}"
        return f"{told}\nModel {found.model} names somebody from a similarity of {found.threshold:.3f} on."

    show(found.as_dict(), as_json=json, text=text)


@app.command("remove")
def remove(
    project: Project,
    name: Name,
    sample: Annotated[str | None, typer.Option(help="Only this picture, by its sample id.", show_default=False)] = None,
    erase: Annotated[
        bool, typer.Option("--erase", help="Erase the pictures for good, from every version and model.")
    ] = False,
    reason: Reason = "erasure requested",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Take somebody out of the gallery: running servers forget them within a second."""
    from keepsight.data import erase as erasing
    from keepsight.data.gallery import enrolling

    with opened(workspace) as ws:
        if erase and not yes and not json and sys.stdin.isatty():
            typer.confirm(f"Erase the pictures of {name} from every version? This cannot be undone.", abort=True)
        taken = enrolling.remove(ws, project, name, actor=actor(), sample_id=sample)
        if erase:
            for _, picture_id in taken.samples:
                erasing.erase_picture(ws, picture_id, actor=actor(), reason=reason)
    value = {"name": name, "samples": [sample_id for sample_id, _ in taken.samples], "erased": erase}
    done = "erased" if erase else "taken out of the gallery and of the data set"
    show(value, as_json=json, text=lambda: f"{name}: {counted(len(taken.samples), 'picture')} {done}.")
