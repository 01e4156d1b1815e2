"""Accuracy against wall time and CPU time: our recipes beside a linear probe and a plain timm fine-tune, in one run.

Each of ours is a workspace of its own, driven through the command line: `init`, `data import`, `train`; the time runs
from the first picture read to the model released, evaluation and gate included. Each peer (bench/train_plain.py) starts
from the same pictures on disk; its looks at test are not counted. Prints a table with the ratio of errors against the
plain fine-tune and writes the points as JSON and as a picture.

    python bench/train.py --data ../shared/data/grocery-store --minutes 10 --out train.json --picture train.svg
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

OURS = ("head", "finetune", "auto")
PEERS = ("probe", "full")
COLOURS = {"head": "#0b6e4f", "finetune": "#1d4ed8", "auto": "#7c3aed", "linear probe": "#b45309", "full": "#be123c"}
WIDTH, HEIGHT, MARGIN = 720, 420, 56

Point = dict[str, Any]


def main() -> None:
    """Runs what was asked for and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("KEEPSIGHT_TEST_DATA", "../shared/data")) / "grocery-store"
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--minutes", type=float, default=10.0, help="for finetune, auto and the plain fine-tune each")
    parser.add_argument("--only", nargs="*", choices=(*OURS, *PEERS), default=(*OURS, *PEERS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    data = options.data.resolve()
    points: list[Point] = []
    for name in options.only:
        points += ours(name, data, options.minutes) if name in OURS else peer(name, data, options.minutes)
    if options.out:
        options.out.write_text(json.dumps(points, indent=1) + "\n")
    if options.picture:
        options.picture.write_text(picture(points))
    sys.stdout.write(table(points))


def ours(recipe: str, data: Path, minutes: float) -> list[Point]:
    """One run of a recipe in a new workspace."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        wall, cpu = time.monotonic(), cpu_of_children()
        cli(root, "init", "shop", "--task", "classification")
        for split in ("train", "val", "test"):
            cli(root, "data", "import", "shop", data / f"{split}.csv", "--label-column", "class_name", "--split", split)
        row = json.loads(cli(root, "train", "shop", "--recipe", recipe, "--budget", f"{minutes}m", "--json"))
        wall, cpu = time.monotonic() - wall, cpu_of_children() - cpu
    found = row["record"]["metrics"]["accuracy"]
    point = {
        "name": recipe,
        "wall_s": round(wall, 1),
        "cpu_s": round(cpu, 1),
        "accuracy": round(found["value"], 4),
        "low": round(found["low"], 4),
        "high": round(found["high"], 4),
        "chosen": row["record"]["plan"].get("chosen", recipe),
    }
    sys.stderr.write(json.dumps(point) + "\n")
    return [point]


def peer(name: str, data: Path, minutes: float) -> list[Point]:
    """The points of a peer's curve."""
    script = Path(__file__).with_name("train_plain.py")
    command = [sys.executable, str(script), name, "--data", str(data), "--minutes", str(minutes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=passive())
    if done.returncode:
        sys.exit(done.stderr)
    sys.stderr.write(done.stdout)
    return [json.loads(line) for line in done.stdout.splitlines()]


def cli(root: Path, *arguments: object) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "keepsight", *map(str, arguments)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, env=dict(os.environ))
    if done.returncode not in (0, 1, 3):
        sys.exit(done.stdout + done.stderr)
    return done.stdout


def passive() -> dict[str, str]:
    """The peers get the thread settings that ours has."""
    return {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}


def cpu_of_children() -> float:
    """CPU seconds of all children that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(points: list[Point]) -> str:
    """The last point of each name, with its error as a ratio of the plain fine-tune's."""
    last = {series(point): point for point in points}
    base = last.get("full")
    lines = [f"{'':24}{'top-1':>8}{'wall s':>9}{'CPU s':>9}{'error ratio':>13}"]
    for name, point in last.items():
        ratio = f"{(1 - point['accuracy']) / (1 - base['accuracy']):.2f}" if base else ""
        told = f"{name} -> {point['chosen']}" if point.get("chosen", name) != name else point["name"]
        lines.append(f"{told:24}{point['accuracy']:8.4f}{point['wall_s']:9.1f}{point['cpu_s']:9.1f}{ratio:>13}")
    return "\n".join(lines) + "\n"


def series(point: Point) -> str:
    """The line that a point belongs to."""
    name: str = point["name"]
    return "full" if name.startswith("full") else name


def picture(points: list[Point]) -> str:
    """An SVG: accuracy over wall time, a line per curve, a dot per single run."""
    longest = max(point["wall_s"] for point in points) * 1.05
    floor = min(0.5, min(point["accuracy"] for point in points) - 0.02)

    def place(point: Point) -> tuple[float, float]:
        x = MARGIN + point["wall_s"] / longest * (WIDTH - 2 * MARGIN)
        return x, HEIGHT - MARGIN - (point["accuracy"] - floor) / (1 - floor) * (HEIGHT - 2 * MARGIN)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="13"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    ]
    for tenth in range(int(floor * 10) + 1, 11):
        _, y = place({"wall_s": 0.0, "accuracy": tenth / 10})
        parts.append(
            f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
            f'<text x="{MARGIN - 8}" y="{y + 4:.1f}" text-anchor="end">{tenth / 10:.1f}</text>'
        )
    for minute in range(int(longest / 60) + 1):
        x, y = place({"wall_s": minute * 60.0, "accuracy": floor})
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{minute}</text>')
    parts.append(
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle">minutes, from pictures to model</text>'
        f'<text x="{MARGIN}" y="{MARGIN - 24}">top-1 on the test pictures</text>'
    )
    for name in dict.fromkeys(map(series, points)):
        mine = [point for point in points if series(point) == name]
        colour = COLOURS[name]
        corners = " ".join("{:.1f},{:.1f}".format(*place(point)) for point in mine)
        parts.append(f'<polyline points="{corners}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for point in mine:
            x, y = place(point)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
        x, y = place(mine[-1])
        told = f"{mine[-1]['name']} {mine[-1]['accuracy']:.3f}"
        side, shift = ("end", -8) if x > WIDTH / 2 else ("start", 8)
        parts.append(f'<text x="{x + shift:.1f}" y="{y - 8:.1f}" fill="{colour}" text-anchor="{side}">{told}</text>')
    return "".join(parts) + "</svg>\n"


if __name__ == "__main__":
    main()
