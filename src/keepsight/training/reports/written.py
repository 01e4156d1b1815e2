"""Reports as files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from keepsight.errors import StorageError
from keepsight.store.workspace import Workspace
from keepsight.training.reports import html, markdown
from keepsight.training.reports.content import Content
from keepsight.training.reports.document import document
from keepsight.training.reports.pictures import MOST_SHOWN, show_mistakes

MARKDOWN, HTML = "report.md", "report.html"


def write(
    ws: Workspace,
    content: Content,
    folder: Path,
    *,
    most: int = MOST_SHOWN,
    progress: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> list[Path]:
    """Writes ``report.md`` and ``report.html`` into a folder, which is made; older ones are replaced.

    Raises:
        StorageError: The folder cannot be written.
    """
    shown = show_mistakes(ws, content, most=most, progress=progress)
    texts = {
        folder / MARKDOWN: markdown.render(document(content)),
        folder / HTML: html.render(document(content, shown=shown)),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"The report cannot be written to {folder} ({error.strerror}).",
            expected="a folder that this user may write to, with room on its disk.",
            do="Name another folder with --out.",
        ) from error
    return list(texts)
