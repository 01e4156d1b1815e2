"""``keepsight demo``: the whole loop on real pictures, over the real server, then the dashboard."""

from __future__ import annotations

import json as json_module
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from keepsight.cli import demo_pictures
from keepsight.cli.common import Json, say, show, table
from keepsight.cli.demo_pictures import DemoPicture, through_worse_camera
from keepsight.errors import ConflictError, KeepsightError, NotReadyError, TrainingError

PROJECT = "demo"
MARKER = "This workspace was made by `keepsight demo`; a new demo replaces it."
SETTINGS = """# {marker}
projects:
  {project}:
    task: classification
    train:
      recipe: head
    evaluation:
      robustness_pictures: 60
    review:
      audit_share: 0.1
      audit_share_alarm: 0.35
    retrain:
      min_new_labels: {labels}
      cooldown_minutes: 0
"""
IMPORT_SHARE, QUIET_SHARE, CHANGED_SHARE, AFTER_SHARE = 0.56, 0.11, 0.22, 0.11
SEED = 7
# Of the changed pictures, the share whose labels start the retrain; the others are served meanwhile.
LABELS_SHARE = 0.6
MIN_LABELS = 10
START_TIMEOUT_S = 60.0
RUN_TIMEOUT_S = 300.0


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("demo")(demo)


@dataclass
class Tally:
    """How many of the served pictures the model got right."""

    right: int = 0
    total: int = 0
    model: set[int] = field(default_factory=set)

    def figure(self) -> dict[str, Any]:
        """Accuracy with its 95 % Wilson interval (Wilson 1927)."""
        n, z = self.total, 1.96
        if n == 0:
            return {"value": None, "low": 0.0, "high": 1.0, "pictures": 0, "model": None}
        share = self.right / n
        middle = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
        return {
            "value": share,
            "low": max(0.0, middle - half),
            "high": min(1.0, middle + half),
            "pictures": n,
            "model": sorted(self.model),
        }


def demo(
    folder: Annotated[
        Path, typer.Option(help="Where the demo's workspace goes; an older demo there is replaced.")
    ] = Path("keepsight-demo"),
    pictures: Annotated[
        Path | None, typer.Option(help="A folder of class folders instead of the built-in digits.", show_default=False)
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the server; 0 takes a free one.")] = 8000,
    exit: Annotated[bool, typer.Option("--exit", help="Stop after the report.")] = False,
    json: Json = False,
) -> None:
    """Run the whole loop on real pictures: train, release, serve, drift, review, retrain, release again."""
    began = time.monotonic()
    _check_folder(folder)
    source = demo_pictures.digits() if pictures is None else demo_pictures.folder(pictures)
    _prepare(folder, labels=max(MIN_LABELS, round(LABELS_SHARE * CHANGED_SHARE * len(source))))
    what = "1,797 real handwritten digits" if pictures is None else f"{len(source)} pictures of {pictures}"
    say(f"Keepsight demo: {what}, in {folder}")
    port = port or _free_port()
    with _server(folder, port) as base:
        report = _Story(base, folder).tell(source)
        report["seconds"] = time.monotonic() - began
        (folder / "report.json").write_text(json_module.dumps(report, indent=2))
        show(report, as_json=json, text=lambda: _report(report))
        if not exit:
            say(f"\nThe dashboard is at {base} - press Ctrl-C to stop.")
            try:
                while True:
                    time.sleep(3600)
            except KeyboardInterrupt:
                say("Stopping.")


class _Story:
    """The loop, told step by step over HTTP."""

    def __init__(self, base: str, folder: Path) -> None:
        import httpx

        self._client = httpx.Client(base_url=base, timeout=60.0)
        self._folder = folder
        self._truth: dict[str, str] = {}

    def tell(self, source: Sequence[DemoPicture]) -> dict[str, Any]:
        """Goes once around the loop; the figures of the report."""
        shares = (IMPORT_SHARE, QUIET_SHARE, CHANGED_SHARE, AFTER_SHARE)
        known, quiet, changed, after = demo_pictures.divide(source, shares=shares, seed=SEED)
        say(f"1. Import {len(known)} labelled pictures and train a model")
        self._import(known)
        first = self._run(self._post("retrain", {"reason": "first model"})["id"])
        accuracy = first["record"]["metrics"]["accuracy"]
        say(f"   model {first['model_number']} is live; {accuracy['value']:.0%} right on its test pictures")

        say(f"2. Serve {len(quiet)} pictures that it has never seen")
        before = self._serve(quiet, worse=False)
        say("3. The camera changes: darker, out of focus, less contrast")
        under = self._serve(changed, worse=True, until_alarm=True)
        alarm = self._alarm()
        if alarm is None:
            say("   no alarm yet: with so few pictures a change may stay unnoticed")
        else:
            say(f"   ALARM: {alarm['text']}")
        self._serve(changed[under.total :], worse=True, into=under)
        say("4. A reviewer answers the queue (a script that knows the true labels plays this part)")
        labels = self._review()
        second_id = self._wait_for_run(first["id"])
        if second_id is None:
            say(
                f"   {labels} pictures labelled, too few for the loop to start by itself; the script asks for a retrain"
            )
            second_id = self._post("retrain", {"reason": f"{labels} reviewed pictures"})["id"]
        else:
            say(f"   {labels} pictures labelled; the loop retrains by itself")
        second = self._run(second_id)
        for check in second["gate"]["checks"]:
            say(f"   gate, {check['name']}: {check['status']} - {check['reason']}")
        say(f"   outcome: {second['outcome']}")
        if second["outcome"] == "ask":
            say("   the gate asks a person; the script, in that part too, approves")
            reason = "the demo's reviewer looked at the figures"
            self._post(f"models/{second['model_number']}/promote", {"reason": reason})
            self._await_model(second["model_number"])
        say(f"5. Serve {len(after)} new pictures of the changed camera")
        final = self._serve(after, worse=True)
        return {
            "before": before.figure(),
            "under_drift": under.figure(),
            "after": final.figure(),
            "alarm": None if alarm is None else {"text": alarm["text"], "after_pictures": alarm["data"]["units"]},
            "labels": labels,
            "runs": [first, second],
            "outcome": second["outcome"],
        }

    def _import(self, pictures: Sequence[DemoPicture]) -> None:
        """Through the command that users type, on a folder of class folders."""
        place = self._folder / "pictures"
        for picture in pictures:
            target = place / picture.label / picture.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(picture.read())
        command = [sys.executable, "-m", "keepsight", "data", "import", PROJECT, str(place), "--json"]
        done = subprocess.run([*command, "--workspace", str(self._folder)], capture_output=True, text=True, check=False)  # noqa: S603 -- our own program
        if done.returncode != 0:
            raise TrainingError(
                f"The import failed: {done.stdout or done.stderr}", expected="an import.", do="See the message above."
            )

    def _serve(
        self, pictures: Sequence[DemoPicture], *, worse: bool, until_alarm: bool = False, into: Tally | None = None
    ) -> Tally:
        tally = Tally() if into is None else into
        for number, picture in enumerate(_progress(pictures, "serving")):
            data = through_worse_camera(picture.read()) if worse else picture.read()
            answer = self._answer(
                self._client.post(f"/v1/{PROJECT}/predict", content=data, headers={"content-type": "image/*"})
            )
            self._truth[answer["prediction_id"]] = picture.label
            tally.right += answer["label"] == picture.label
            tally.total += 1
            tally.model.add(answer["model"]["version"])
            if until_alarm and number % 10 == 9 and self._alarms():
                break
        return tally

    def _alarms(self) -> list[dict[str, Any]]:
        return [alert for alert in self._get("monitor")["alerts"] if alert["kind"] == "drift"]

    def _alarm(self) -> dict[str, Any] | None:
        """The drift alert, if one comes within some seconds of the last picture."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if alerts := self._alarms():
                return alerts[0]
            time.sleep(0.2)
        return None

    def _review(self) -> int:
        """Answers everything in the queue with the true labels."""
        labels, deadline = 0, time.monotonic() + 60
        while time.monotonic() < deadline:
            item = self._get("review/next").get("item")
            if item is None:
                if labels:
                    return labels
                time.sleep(0.3)
                continue
            body = {"value": {"label": self._truth[item["event_id"]]}}
            self._answer(self._client.post(f"/v1/{PROJECT}/review/{item['event_id']}", json=body))
            labels += 1
        return labels

    def _wait_for_run(self, before: str) -> str | None:
        """The run that the loop started by itself; None if it starts none within some seconds."""
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline:
            newest = self._get("runs")["runs"][0]
            if newest["id"] != before:
                return str(newest["id"])
            time.sleep(0.2)
        return None

    def _await_model(self, number: int) -> None:
        """Until the server answers with this model."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            newest = self._get("deployments")["deployments"][0]
            if newest["model_number"] == number and newest["live_at"] is not None:
                return
            time.sleep(0.1)
        raise NotReadyError(
            f"Model {number} is not live.", expected="a server that answers with it.", do="Look at the server's log."
        )

    def _run(self, run_id: str) -> dict[str, Any]:
        deadline, step = time.monotonic() + RUN_TIMEOUT_S, None
        while time.monotonic() < deadline:
            row = self._get(f"runs/{run_id}")
            if row["step"] != step and row["step"] is not None:
                step = row["step"]
                say(f"   … {step}")
            if row["status"] not in {"queued", "running"}:
                if row["status"] != "done":
                    raise TrainingError(
                        f"The run {row['status']}: {(row['error'] or {}).get('found', '')}",
                        expected="a run that ends with a model.",
                        do=(row["error"] or {}).get("do", "Start the demo again."),
                    )
                return row
            time.sleep(0.1)
        raise TrainingError("The run did not end.", expected="an end within minutes.", do="Look at the server's log.")

    def _get(self, path: str) -> dict[str, Any]:
        return self._answer(self._client.get(f"/v1/{PROJECT}/{path}"))

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._answer(self._client.post(f"/v1/{PROJECT}/{path}", json=body))

    def _answer(self, response: Any) -> dict[str, Any]:
        body: dict[str, Any] = response.json()
        if response.is_error:
            error = body["error"]
            raise KeepsightError(error["found"], expected=error["expected"], do=error["do"])
        return body


def _check_folder(folder: Path) -> None:
    """Makes sure that nothing but an earlier demo is replaced."""
    settings = folder / "keepsight.yaml"
    if folder.exists() and any(folder.iterdir()) and not (settings.is_file() and MARKER in settings.read_text()):
        raise ConflictError(
            f"{folder} is not empty and was not made by a demo.",
            expected="a new folder, or that of an earlier demo.",
            do="Name another with --folder.",
        )


def _prepare(folder: Path, *, labels: int) -> None:
    """An empty demo workspace whose loop retrains after so many new labels."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / "keepsight.yaml").write_text(SETTINGS.format(marker=MARKER, project=PROJECT, labels=labels))


@contextmanager
def _server(folder: Path, port: int) -> Iterator[str]:
    """``keepsight up`` on the demo's workspace, ready to answer; stopped at the end."""
    import httpx

    base = f"http://127.0.0.1:{port}"
    log = folder / "server.log"
    command = [sys.executable, "-m", "keepsight", "up", "--port", str(port), "--workspace", str(folder)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ})  # noqa: S603 -- our own program
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                if httpx.get(f"{base}/healthz", timeout=2.0).is_success and process.poll() is None:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotReadyError(
                    f"The server did not start: {log.read_text(errors='replace').strip()[-600:]}",
                    expected=f"a server on port {port}.",
                    do="Stop what uses that port, or choose another with --port.",
                )
        yield base
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _progress(pictures: Sequence[DemoPicture], text: str) -> Iterator[DemoPicture]:
    if not sys.stderr.isatty():
        yield from pictures
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(pictures, description=f"   {text}", console=Console(stderr=True), transient=True)


def _report(report: dict[str, Any]) -> str:
    rows = []
    names = {"before": "before the change", "under_drift": "after the change", "after": "after retraining"}
    for name, text in names.items():
        figure = report[name]
        rows.append(
            (text, figure["pictures"], f"{figure['value']:.3f}", f"{figure['low']:.3f} to {figure['high']:.3f}")
        )
    told = table(("", "pictures", "right", "95 % interval"), rows, empty="")
    return f"\n{told}\n\nOnce around the loop in {report['seconds']:.0f} s."
