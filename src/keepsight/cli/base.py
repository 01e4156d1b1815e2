"""The command line of the base install: predicts with a bundle; every other command names the extra that it needs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from keepsight import __version__
from keepsight.cli.saving import Saved, read
from keepsight.errors import BadInputError, KeepsightError, MissingExtraError

EXIT_ERROR = 2


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in the shape of all errors."""

    def error(self, message: str) -> NoReturn:
        raise BadInputError(
            f"{message[0].upper()}{message[1:]}.",
            expected="`keepsight predict BUNDLE PICTURE...`.",
            do="See `keepsight predict --help`.",
        )


def run(arguments: Sequence[str]) -> int:
    """Runs one command; the exit code."""
    as_json = "--json" in arguments
    try:
        return _run(arguments)
    except KeepsightError as error:
        if as_json:
            sys.stdout.write(json.dumps(error.as_dict()) + "\n")
        else:
            sys.stderr.write(f"{error.found}\n  Expected: {error.expected}\n  What to do: {error.do}\n")
        return EXIT_ERROR


def _run(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] not in {"predict", "-h", "--help", "--version"}:
        raise MissingExtraError(
            f"`keepsight {arguments[0]}` is not part of the base install.",
            expected="`predict`, which is all that the base install does.",
            do='Install the platform: pip install "keepsight[server]".',
        )
    parser = _Parser(prog="keepsight", description="Keepsight, base install: predict with a bundle.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    predict = commands.add_parser("predict", help="answers for pictures")
    predict.add_argument("bundle", type=Path, help="a bundle: a folder or .zip")
    predict.add_argument("pictures", type=Path, nargs="+", help="pictures, or videos (mp4, mov, webm)")
    predict.add_argument("--top-k", type=int, default=5)
    predict.add_argument("--save", type=Path, help="folder for the answers as pictures, where the task has such")
    predict.add_argument("--background", default="", help="of these: a colour, or a picture file; else transparent")
    predict.add_argument("--every", default="1s", help="time between two frames of a video")
    predict.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    from keepsight.runtime.bundle import Bundle
    from keepsight.runtime.predictor import Predictor

    predictor = Predictor(Bundle.open(options.bundle))
    saved = Saved.to(options.save, predictor, background=options.background)
    answers = predict_files(predictor, options.pictures, top_k=options.top_k, every=options.every, saved=saved)
    sys.stdout.write(render(answers, as_json=options.json))
    return 1 if all("error" in answer for answer in answers) else 0


def predict_files(
    predictor: Any, paths: Sequence[Path], *, top_k: int, every: str = "1s", saved: Saved | None = None
) -> list[dict[str, Any]]:
    """One answer or error per picture or video, in order; a bad file costs itself alone.

    Raises:
        BadInputError: ``every`` is no interval.
    """
    from keepsight.data import video

    every_s = video.interval(every)
    answers = []
    for path in paths:
        try:
            if video.is_video(path):
                answers.append({"picture": str(path), **_video(predictor, path, top_k=top_k, every_s=every_s)})
                continue
            data = read(path)
            answer = predictor.predict(data, top_k=top_k).as_dict()
            if saved is not None:
                answer["saved"] = str(saved.write(path, data, answer))
            answers.append({"picture": str(path), **answer})
        except KeepsightError as error:
            answers.append({"picture": str(path), **error.as_dict()})
    return answers


def _video(predictor: Any, path: Path, *, top_k: int, every_s: float) -> dict[str, Any]:
    """The answers to the frames of a video, and the segments that they make."""
    from keepsight.data import scenes, video

    ending = video.Ending()
    rows = []
    for frame in video.frames(path, sampling=video.Sampling(every_s=every_s), ending=ending):
        answer = predictor.predict(frame.jpeg(), top_k=top_k).as_dict()
        rows.append({"second": frame.second, "scene": frame.scene, **answer})
    segments = scenes.segments(rows, seconds=ending.seconds)
    return {"frames": rows, "segments": segments, "video": ending.as_dict()}


def render(answers: Sequence[dict[str, Any]], *, as_json: bool) -> str:
    """The answers as JSON, or as a line per picture and per segment of a video."""
    if as_json:
        return json.dumps({"predictions": list(answers)}) + "\n"
    lines = []
    for answer in answers:
        if "error" in answer:
            lines.append(f"{answer['picture']}: {answer['error']['found']}")
        elif "segments" in answer:
            name = answer["picture"]
            lines += [_line(f"{name} {one['start']:g}-{one['end']:g} s", one) for one in answer["segments"]]
            if answer["video"]["stopped"]:
                lines.append(f"{name}: {answer['video']['stopped']}")
        else:
            lines.append(_line(answer["picture"], answer))
            lines += [f"  {line}" for line in _further(answer)]
    return "\n".join(lines) + "\n"


def _further(answer: dict[str, Any]) -> list[str]:
    """What of an answer is too long for its label: the values of its fields, or else the lines of its text."""
    fields = answer.get("fields") or {}
    if fields:
        width = max(map(len, fields))
        doubts = {name: found["confidence"] for name, found in (answer.get("found") or {}).items()}
        return [
            f"{name:<{width}}  {text}" + (f"  ({doubts[name]:.0%})" if name in doubts else "")
            for name, text in fields.items()
        ]
    return [str(line["text"]) for line in answer.get("lines") or () if "text" in line]


def _line(name: str, answer: dict[str, Any]) -> str:
    ask = "" if answer["decision"] == "auto" else "  (please check)"
    where = f" -> {answer['saved']}" if "saved" in answer else ""
    return f"{name}: {answer['label']} {answer['confidence']:.0%}{ask}{where}"
