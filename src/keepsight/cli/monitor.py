"""``keepsight monitor``: status, drift, accuracy, alerts, close."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from keepsight.cli.common import Json, Project, WorkspaceOption, actor, interval, opened, show, table, when

app = typer.Typer(help="How the live model is doing.", no_args_is_help=True)


def _status(project: str, workspace: WorkspaceOption) -> dict[str, Any]:
    from keepsight.monitoring import watch

    with opened(workspace) as ws:
        return watch.status(ws, ws.check_project(project))


@app.command("status")
def status(project: Project, workspace: WorkspaceOption = None, json: Json = False) -> None:
    """Drift, audited accuracy, latency and open alerts in one look."""
    value = _status(project, workspace)

    def text() -> str:
        lines = [_drift(value["drift"]), _accuracy(value["accuracy"]), _latency(value["latency"])]
        lines += [
            f"ALERT {item['title']}: {item['text']} (since {when(item['created_at'])})" for item in value["alerts"]
        ]
        return "\n".join(lines)

    show(value, as_json=json, text=text)


@app.command("drift")
def drift(project: Project, workspace: WorkspaceOption = None, json: Json = False) -> None:
    """Whether the pictures changed since the model was released, and how."""
    value = _status(project, workspace)["drift"]
    show(value, as_json=json, text=lambda: _drift(value))


@app.command("accuracy")
def accuracy(project: Project, workspace: WorkspaceOption = None, json: Json = False) -> None:
    """Accuracy from audited verdicts only, with its interval."""
    value = _status(project, workspace)["accuracy"]
    show(value, as_json=json, text=lambda: _accuracy(value))


@app.command("alerts")
def list_alerts(project: Project, workspace: WorkspaceOption = None, json: Json = False) -> None:
    """All alerts, newest first."""
    from keepsight.monitoring import alerts

    with opened(workspace) as ws:
        rows = alerts.history(ws, ws.check_project(project))
    lines = [(row.id[:8], row.kind, row.title, when(row.created_at), when(row.closed_at)) for row in rows]
    head = ("alert", "kind", "title", "since", "closed")
    show([row.as_dict() for row in rows], as_json=json, text=lambda: table(head, lines, empty="No alerts."))


@app.command("close")
def close(
    project: Project,
    alert: Annotated[str, typer.Argument(help="Alert id, or its beginning.", show_default=False)],
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Close an alert."""
    from keepsight.monitoring import alerts

    with opened(workspace) as ws:
        ids = [row.id for row in alerts.history(ws, ws.check_project(project), limit=1000)]
        full = next((item for item in ids if item.startswith(alert)), alert)
        alerts.close(ws, project, full, actor=actor())
    show({"alert": full, "closed": True}, as_json=json, text=lambda: f"Closed alert {full[:8]}.")


def _drift(value: dict[str, Any]) -> str:
    if value.get("units") is None:
        return "Drift: nothing watched yet."
    state = "ALARM" if value["alarm"] else "no alarm"
    why = "; ".join(item["text"] for item in value.get("explain", []))
    return f"Drift: {state} after {value['units']} pictures" + (f" ({why})" if value["alarm"] and why else "")


def _accuracy(value: dict[str, Any]) -> str:
    counts = f"{value['n_answered']} audits answered, {value['n_unanswered']} waiting"
    return f"Accuracy: {interval(value)}, {counts}"


def _latency(value: dict[str, Any]) -> str:
    if value.get("p50") is None:
        return "Latency: no requests yet."
    return (
        f"Latency: median {value['p50']:.1f} ms, 95 % within {value['p95']:.1f} ms, 99 % within {value['p99']:.1f} ms"
    )
