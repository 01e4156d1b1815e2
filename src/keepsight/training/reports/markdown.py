"""A report as Markdown, as GitHub and GitLab show it in a pull request."""

from __future__ import annotations

from typing import assert_never

from keepsight.training.reports import words
from keepsight.training.reports.document import Block, Checks, Document, Gallery, Plot, Table

_MARKS = {"pass": "✅", "fail": "❌", "cannot_tell": "❔", "told": "ℹ️"}


def render(report: Document) -> str:
    """The document as text; plots and pictures are left out, their tables stand in for them."""
    parts = [f"# {_plain(report.title)}", _plain(report.subtitle), f"**{_plain(report.summary)}**"]
    for section in report.sections:
        parts.append(f"## {_plain(section.title)}")
        parts += [text for block in section.blocks if (text := _block(block))]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    match block:
        case str():
            return _plain(block)
        case Table():
            return _table(block)
        case Checks():
            return "\n".join(
                f"- {_MARKS.get(status, '❔')} {words.STATUSES.get(status, status)}: {_plain(reason)}"
                for status, reason in block.rows
            )
        case Plot() | Gallery():
            return ""
        case _:
            assert_never(block)


def _table(table: Table) -> str:
    lines = [table.head, tuple("---:" if name in table.numbers else "---" for name in table.head), *table.rows]
    cells = [[cell if number == 1 else _cell(cell) for cell in line] for number, line in enumerate(lines)]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """A text in which nothing is markup: class names are anything."""
    for mark in ("\\", "`", "*", "_", "[", "]", "<", "#", "~"):
        text = text.replace(mark, f"\\{mark}" if mark != "<" else "&lt;")
    return " ".join(text.split())
