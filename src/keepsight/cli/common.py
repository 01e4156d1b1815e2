"""What every command shares: the workspace, ``--json``, tables, progress and the one shape of errors."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keepsight.errors import KeepsightError

if TYPE_CHECKING:
    from keepsight.store.workspace import Workspace

Project = Annotated[str, typer.Argument(help="The project's name.", show_default=False)]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace", "-w", help="Folder with keepsight.yaml; else the one here or above.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the audit log.")]

EXIT_ERROR = 2


def actor() -> str:
    """Who is recorded for what this command does: the OS user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


@contextmanager
def opened(workspace: Path | None) -> Iterator[Workspace]:
    """The workspace, open for one command."""
    from keepsight.store.workspace import Workspace

    ws = Workspace.open(workspace)
    try:
        yield ws
    finally:
        ws.close()


def show(value: Any, *, as_json: bool, text: Callable[[], str]) -> None:
    """Prints a result: JSON for programs, ``text()`` for people."""
    sys.stdout.write((json.dumps(value, default=str) if as_json else text()).rstrip("\n") + "\n")


def say(line: str) -> None:
    """A line about what is going on; on stderr, so that stdout holds results alone."""
    sys.stderr.write(line + "\n")


def tell_error(error: KeepsightError, *, as_json: bool) -> None:
    """Prints an error: the one JSON shape on stdout, or three lines on stderr."""
    if as_json:
        sys.stdout.write(json.dumps(error.as_dict(), default=str) + "\n")
    else:
        sys.stderr.write(f"{error.found}\n  Expected: {error.expected}\n  What to do: {error.do}\n")


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str) -> str:
    """A plain text table, or ``empty``."""
    if not rows:
        return empty
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(head), *texts]) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *texts]]
    return "\n".join(line.rstrip() for line in lines)


def counted(count: int, one: str) -> str:
    """A count with its noun: "1 picture", "3 pictures"."""
    return f"{count} {one if count == 1 else one + 's'}"


def when(seconds: float | None) -> str:
    """A time for people, UTC."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def interval(figure: Mapping[str, Any] | None) -> str:
    """``0.912 (0.89 to 0.93)``, or ``unknown``."""
    if not figure or figure.get("value") is None:
        return "unknown"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A callback that draws a progress bar on stderr once a task takes longer than two seconds.

    It takes dicts with ``text`` and, where known, ``done`` and ``total``.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    import time

    from rich.console import Console
    from rich.progress import Progress

    began = time.monotonic()
    with Progress(console=Console(stderr=True), transient=True, disable=False) as bars:
        task = bars.add_task("", total=None, visible=False)

        def on_progress(state: Mapping[str, Any]) -> None:
            visible = time.monotonic() - began > 2
            bars.update(
                task,
                description=str(state.get("text", "")),
                completed=state.get("done", 0),
                total=state.get("total"),
                visible=visible,
            )

        yield on_progress
