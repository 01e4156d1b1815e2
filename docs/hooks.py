"""MkDocs hook: writes the reference tables from the program itself, so that they cannot differ from it.

A page asks for a table with a comment line: ``<!-- settings -->``, ``<!-- commands -->`` or ``<!-- errors -->``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keepsight import config as settings
from keepsight import errors
from keepsight.errors import KeepsightError

SCOPES = {
    "workspace": "At the top of `keepsight.yaml`; they hold for everything.",
    "project": "Below a project's name; each project has its own.",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its tables filled in."""
    for name, write in (("settings", settings_tables), ("commands", command_sections), ("errors", errors_table)):
        marker = f"<!-- {name} -->"
        if marker in markdown:
            markdown = markdown.replace(marker, write())
    return markdown


def settings_tables() -> str:
    """All settings, a table per scope."""
    parts = []
    for scope, text in SCOPES.items():
        rows = [
            (f"`{item.name}`", told_default(item.default), item.unit, item.help, f"`{variable(item.name)}`")
            for item in settings.TABLE
            if item.scope == scope
        ]
        head = ("setting", "default", "unit", "meaning", "environment")
        parts.append(f"## Of the {scope}\n\n{text}\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return settings.environment_name(name)


def told_default(value: Any) -> str:
    """A default for people."""
    if value is None or value == {}:
        return "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def command_sections() -> str:
    """All commands with their arguments and options, a section per group."""
    import typer

    from keepsight.cli.app import app

    sections: dict[str, list[str]] = {"": []}
    for words, command in leaves(typer.main.get_command(app)):
        group = " ".join(words[:-1])
        sections.setdefault(group, []).append(command_section(words, command))
    titles = {"": "Everyday commands"}
    return "\n\n".join(
        f"## {titles.get(group, f'keepsight {group}')}\n\n" + "\n\n".join(parts) for group, parts in sections.items()
    )


def leaves(node: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that call it."""
    children = getattr(node, "commands", None)
    if children is None:
        yield words, node
        return
    for name, child in children.items():
        yield from leaves(child, (*words, name))


def command_section(words: tuple[str, ...], command: Any) -> str:
    """One command: how it is called, what it does, and its options."""
    arguments = [item for item in command.params if not item.opts[0].startswith("-")]
    options = [item for item in command.params if item.opts[0].startswith("-") and not item.hidden]
    call = " ".join(["keepsight", *words, *(placeholder(item) for item in arguments)])
    rows = [(f"`{placeholder(item)}`", item.help) for item in arguments]
    rows += [(option_names(item), item.help + option_default(item)) for item in options]
    return f"### {' '.join(words)}\n\n{command.help}\n\n```text\n{call}\n```\n\n{table(('argument', 'meaning'), rows)}"


def placeholder(argument: Any) -> str:
    """How an argument stands in a call: ``PROJECT``, ``[NUMBER]``, ``PICTURES...``."""
    name = str(argument.name).upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def option_names(option: Any) -> str:
    """``--workspace, -w`` or ``--promote / --no-promote``, as code."""
    names = ", ".join(f"`{name}`" for name in option.opts)
    return names + "".join(f" / `{name}`" for name in option.secondary_opts)


def option_default(option: Any) -> str:
    """``(default: 8000)`` where there is one worth telling."""
    if option.default in (None, "", False, True) or callable(option.default):
        return ""
    return f" (default: `{option.default}`)"


def errors_table() -> str:
    """All errors: code, HTTP status and meaning."""
    rows = [(f"`{kind.code}`", kind.status, first_line(kind)) for kind in error_kinds()]
    return table(("code", "HTTP status", "meaning"), sorted(rows, key=lambda row: (row[1], row[0])))


def error_kinds() -> list[type[KeepsightError]]:
    """All errors that a user can meet."""
    return [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, KeepsightError) and kind is not KeepsightError
    ]


def first_line(kind: type[KeepsightError]) -> str:
    """The meaning of an error."""
    return (kind.__doc__ or "").strip().splitlines()[0].replace("``", "`")


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
