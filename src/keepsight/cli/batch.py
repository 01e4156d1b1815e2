"""``batch``: answers for a whole folder, table or bucket of pictures, into a file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from keepsight.cli.common import Json, Project, WorkspaceOption, counted, opened, progress_bar, show

# Rows between two moments at which the file is surely on disk.
FLUSHED_EVERY = 256


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("batch")(batch)


class _Remembered:
    """An iterator that keeps what was taken from it until that is asked for again, in the same order."""

    def __init__(self, names: Iterator[str]) -> None:
        self._names = names
        self._taken: deque[str] = deque()

    def __iter__(self) -> Iterator[str]:
        for name in self._names:
            self._taken.append(name)
            yield name

    def next_taken(self) -> str:
        """The name whose result comes next."""
        return self._taken.popleft()


def batch(
    project: Project,
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, a CSV file with a column path, or a bucket (s3://, gs://, az://).", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where the answers go: a new .csv or .jsonl file.", show_default=False)],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the file; pictures in it are skipped.")] = False,
    model: Annotated[
        int | None, typer.Option(help="Number of the model; else the live one.", show_default=False)
    ] = None,
    top_k: Annotated[int, typer.Option(help="How many possibilities.", min=1)] = 5,
    variant: Annotated[str, typer.Option(help="float or int8.")] = "float",
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> int:
    """Answer for many pictures where `executor` says; nothing is logged. Exit code 1 if none could be answered."""
    import time

    from keepsight import executors
    from keepsight.cli.batch_files import Answers, pictures_at
    from keepsight.data.gallery import bundles
    from keepsight.errors import BadInputError, KeepsightError
    from keepsight.executors import pictures
    from keepsight.training import models

    answered = failed = 0
    with opened(workspace) as ws:
        ws.check_project(project)
        found = pictures_at(source)
        chosen = models.find(ws, project, model)
        live = bundles.with_changes(ws, project, models.load_bundle(ws, chosen), number=chosen.number)
        shared = pictures.answering(live, top_k=top_k, variant=variant)
        with executors.of(ws.config) as executor, progress_bar(quiet=json) as on_progress:
            answers = Answers(out, model=chosen.number, resume=resume)
            try:
                # A bucket is not listed twice only to know how long it takes.
                total = None if "://" in source else sum(1 for _ in found.names()) - answers.already
                began = time.perf_counter()
                names = _Remembered(answers.remaining(found.names()))
                results = executor.map(pictures.Answering, names, shared=shared, load=found.read, chunk=pictures.CHUNK)
                for result in results:
                    name = names.next_taken()
                    if not isinstance(result, KeepsightError):
                        answered += 1
                    elif isinstance(result, BadInputError):
                        failed += 1
                    else:
                        raise result
                    answers.add(name, result.as_dict())
                    if (answered + failed) % FLUSHED_EVERY == 0:
                        answers.flush()
                    on_progress({"text": "answering pictures", "done": answered + failed, "total": total})
                answers.flush()
            finally:
                answers.close()
            seconds = time.perf_counter() - began
            place = executor.text
    value: dict[str, Any] = {
        "out": str(out),
        "model": chosen.number,
        "pictures": answered + failed,
        "errors": failed,
        "skipped": answers.already,
        "seconds": round(seconds, 3),
        "pictures_per_s": round((answered + failed) / seconds, 2),
        "executor": place,
    }

    def text() -> str:
        lines = [
            f"{counted(answered + failed, 'picture')} in {seconds:.1f} s "
            f"({value['pictures_per_s']:.1f} a second; {place}) by model {chosen.number}: {out}"
        ]
        if failed:
            lines.append(f"  {counted(failed, 'picture')} could not be answered; the column error says why.")
        if answers.already:
            lines.append(f"  {counted(answers.already, 'row')} were there already.")
        return "\n".join(lines)

    show(value, as_json=json, text=text)
    return 1 if failed and not answered else 0
