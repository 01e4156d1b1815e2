"""``keepsight data``: import, export, versions, diff, show, check, tag, commit, verify."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from keepsight.cli.common import (
    Json,
    Project,
    WorkspaceOption,
    actor,
    counted,
    opened,
    progress_bar,
    show,
    table,
    when,
)

app = typer.Typer(help="Pictures and labels: import, versions, checks.", no_args_is_help=True)
Which = Annotated[str, typer.Argument(help="Version number, tag or latest.", show_default=False)]
SHOWN_REJECTIONS = 20


@app.command("import")
def import_pictures(
    project: Project,
    source: Annotated[Path, typer.Argument(help="A folder, or a CSV, JSON or video file.", show_default=False)],
    split: Annotated[
        str, typer.Option(help="train, val or test for all; auto: as the source says, else made.")
    ] = "auto",
    format: Annotated[
        str | None,
        typer.Option(
            help="coco, voc, yolo, label-studio, masks, json, folders, csv, one-per-class or video; else found out."
        ),
    ] = None,
    label_column: Annotated[str | None, typer.Option(help="CSV column with the label.", show_default=False)] = None,
    every: Annotated[str, typer.Option(help="Time between two frames of a video, as in 2s or 500ms.")] = "1s",
    message: Annotated[str | None, typer.Option(help="Message of the dataset version.", show_default=False)] = None,
    commit: Annotated[bool, typer.Option(help="Make a dataset version of it.")] = True,
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> int:
    """Import pictures. What cannot be read is listed with its reason (exit code 1); the rest goes in."""
    from keepsight.data import importers, versions, video

    with opened(workspace) as ws, progress_bar(quiet=json) as on_progress:
        ws.check_project(project)
        report = importers.import_path(
            ws,
            project,
            source,
            split=split,
            format=format,
            label_column=label_column,
            every_s=video.interval(every),
            author=actor(),
            progress=lambda done, total: on_progress({"text": "importing", "done": done, "total": total}),
        )
        version = None
        if commit:
            on_progress({"text": "making a dataset version"})
            version = versions.commit(ws, project, message=message or f"import of {source.name}", author=actor())
    value = {**report.as_dict(), "version": None if version is None else version.as_dict()}

    def text() -> str:
        lines = [f"Taken for {report.kind}."]
        lines += [f"{report.added} added, {report.updated} changed, {report.unchanged} already there."]
        lines += [f"  not taken: {item.name}: {item.text}" for item in report.rejected[:SHOWN_REJECTIONS]]
        if len(report.rejected) > SHOWN_REJECTIONS:
            lines.append(f"  and {len(report.rejected) - SHOWN_REJECTIONS} more (--json lists all)")
        folders = [item for item in report.skipped if item.code == "not_a_split"]
        lines += [f"  left out: {item.name}: {item.text}" for item in folders]
        if len(report.skipped) > len(folders):
            lines.append(f"  {len(report.skipped) - len(folders)} other files were passed over.")
        lines += [f"  Note: {warning}" for warning in report.warnings]
        if version is not None:
            lines.append(f"Dataset version {version.number}: {version.samples} pictures.")
        return "\n".join(lines)

    show(value, as_json=json, text=text)
    return 1 if report.rejected else 0


@app.command("export")
def export_version(
    project: Project,
    directory: Annotated[Path, typer.Argument(help="A folder that is empty or not there yet.", show_default=False)],
    format: Annotated[
        str | None,
        typer.Option(help="coco, voc, yolo, label-studio, folders, csv, masks or json; else the usual one."),
    ] = None,
    version: Annotated[str, typer.Option(help="Version number, tag or latest.")] = "latest",
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> int:
    """Write a version for other tools. What has no room in the format is listed with its reason (exit code 1)."""
    from keepsight.data import exporters

    with opened(workspace) as ws, progress_bar(quiet=json) as on_progress:
        export = exporters.prepare(ws, ws.check_project(project), version=version, format=format)
        report = exporters.write(
            ws,
            project,
            directory,
            export=export,
            actor=actor(),
            progress=lambda done, total: on_progress({"text": "exporting", "done": done, "total": total}),
        )
    left_out = (*export.left_out, *report.failed)

    def text() -> str:
        lines = [f"Version {export.version} of {project} is in {directory} as {export.kind}."]
        splits = export.as_dict()["splits"].items()
        lines += [f"{len(export.items)} pictures: {', '.join(f'{count} {split}' for split, count in splits)}."]
        lines += [f"  left out: {item.name}: {item.text}" for item in left_out[:SHOWN_REJECTIONS]]
        if len(left_out) > SHOWN_REJECTIONS:
            lines.append(f"  and {len(left_out) - SHOWN_REJECTIONS} more (--json lists all)")
        return "\n".join(lines)

    show(report.as_dict(), as_json=json, text=text)
    return 1 if left_out else 0


@app.command("versions")
def list_versions(project: Project, workspace: WorkspaceOption = None, json: Json = False) -> None:
    """All dataset versions, newest first."""
    from keepsight.data import versions

    with opened(workspace) as ws:
        rows = versions.log(ws, ws.check_project(project))
    lines = [
        (row.number, row.samples, f"+{row.added} -{row.removed}", row.message, row.author, when(row.created_at),
         ", ".join(row.tags), row.digest[:12])
        for row in rows
    ]  # fmt: skip
    head = ("version", "pictures", "change", "message", "by", "made (UTC)", "tags", "digest")
    show([row.as_dict() for row in rows], as_json=json, text=lambda: table(head, lines, empty="No versions yet."))


@app.command("commit")
def commit_changes(
    project: Project,
    message: Annotated[str, typer.Option("--message", "-m", help="What changed.")] = "changes",
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Make everything that changed since the last version the next one."""
    from keepsight.data import versions

    with opened(workspace) as ws:
        version = versions.commit(ws, ws.check_project(project), message=message, author=actor())
    value = {"version": None if version is None else version.as_dict()}
    told = "Nothing changed." if version is None else f"Dataset version {version.number}: {version.samples} pictures."
    show(value, as_json=json, text=lambda: told)


@app.command("diff")
def diff(project: Project, before: Which, after: Which, workspace: WorkspaceOption = None, json: Json = False) -> None:
    """What changed from one version to another."""
    from keepsight.data import samples, versions

    with opened(workspace) as ws:
        result = versions.diff(ws, ws.check_project(project), before, after)
        summary = samples.summaries(ws, project)

    def side(split: str | None, value: dict[str, Any] | None) -> str:
        return "" if split is None else f"{split}: {summary(value)}"

    def text() -> str:
        lines = [
            (change.kind, change.name, side(change.split_before, change.value_before),
             side(change.split_after, change.value_after))
            for change in result.changes
        ]  # fmt: skip
        return table(("change", "picture", "before", "after"), lines, empty="No difference.")

    show(result.as_dict(), as_json=json, text=text)


@app.command("show")
def show_version(
    project: Project,
    which: Annotated[str, typer.Argument(help="Version number, tag or latest.")] = "latest",
    samples: Annotated[bool, typer.Option("--samples", help="List every picture.")] = False,
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """One version: pictures per class and split."""
    from keepsight.data import samples as reading
    from keepsight.data import versions

    with opened(workspace) as ws:
        version = versions.get(ws, ws.check_project(project), which)
        rows = reading.at_version(ws, project, version.number)
        names, summary = reading.counted_as(ws, project), reading.summaries(ws, project)
    counts = Counter((name or "(no label)", row.split) for row in rows for name in names(row.value))
    splits = sorted({split for _, split in counts})
    classes = sorted({label for label, _ in counts})
    value: dict[str, Any] = {
        **version.as_dict(),
        "classes": {label: {split: counts[label, split] for split in splits} for label in classes},
    }
    if samples:
        value["rows"] = [row.as_dict() for row in rows]

    def text() -> str:
        lines = [(label, *(counts[label, split] for split in splits)) for label in classes]
        told = f"Version {version.number} of {project}: {version.samples} pictures, {version.message}\n"
        told += table(("class", *splits), lines, empty="No pictures.")
        if samples:
            listed = [(row.sample_id, row.split, summary(row.value), row.name) for row in rows]
            told += "\n\n" + table(("sample", "split", "label", "name"), listed, empty="")
        return told

    show(value, as_json=json, text=text)


@app.command("check")
def check_version(
    project: Project,
    which: Annotated[str, typer.Argument(help="Version number, tag or latest.")] = "latest",
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> int:
    """What to know before training: gaps, doubtful classes, annotations that do not fit (exit code 1 if serious)."""
    from keepsight.data import checks

    with opened(workspace) as ws:
        report = checks.check(ws, project, which)

    def text() -> str:
        splits = sorted({split for counts in report.classes.values() for split in counts})
        lines = [(name, *(counts.get(split, 0) for split in splits)) for name, counts in report.classes.items()]
        told = [f"Version {report.version} of {project}: {counted(report.pictures, 'picture')}."]
        told += [table(("class", *splits), lines, empty="")] if lines else []
        told += [f"{'  serious: ' if item.serious else '  '}{item.text}" for item in report.findings]
        return "\n".join(told if report.findings else [*told, "  Nothing to remark."])

    show(report.as_dict(), as_json=json, text=text)
    return 1 if any(item.serious for item in report.findings) else 0


@app.command("tag")
def tag(
    project: Project,
    which: Which,
    name: Annotated[str, typer.Argument(help="A name for the version; it never moves.", show_default=False)],
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Give a version a name."""
    from keepsight.data import versions

    with opened(workspace) as ws:
        version = versions.get(ws, ws.check_project(project), which)
        versions.tag(ws, project, name, version.number, actor=actor())
    show({"version": version.number, "tag": name}, as_json=json, text=lambda: f"Version {version.number} is {name}.")


@app.command("verify")
def verify(
    project: Project,
    which: Annotated[str | None, typer.Argument(help="Version number or tag; else all.", show_default=False)] = None,
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Recompute the digests of a version, or of all, from their rows."""
    from keepsight.data import versions

    with opened(workspace) as ws:
        count = versions.verify(ws, ws.check_project(project), which)
    show({"verified": count}, as_json=json, text=lambda: f"As committed: {counted(count, 'version')}.")
