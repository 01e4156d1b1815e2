"""Videos as they come: whole, turned, cut off, endless, and files that only say they are videos."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keepsight.data import importers, samples, video
from keepsight.data.video import Ending, Frame, Sampling
from keepsight.errors import BadInputError, KeepsightError, MissingExtraError, PictureError
from keepsight.store.workspace import Workspace

from ..clips import clip

pytestmark = [pytest.mark.video, pytest.mark.usefixtures("video_installed")]


def read(source: Any, **sampling: Any) -> tuple[list[Frame], Ending]:
    ending = Ending()
    return list(video.frames(source, sampling=Sampling(**sampling), ending=ending)), ending


def colour(frame: Frame) -> str:
    return ("red", "green", "blue")[int(frame.image.reshape(-1, 3).mean(axis=0).argmax())]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".webm"])
def test_a_frame_each_interval_and_after_each_cut(tmp_path: Path, suffix: str) -> None:
    path = clip(tmp_path / f"c{suffix}")
    found, ending = read(path, every_s=2.0)
    assert [(frame.second, frame.scene, colour(frame)) for frame in found] == [
        (0.0, 0, "red"),
        (2.0, 0, "red"),
        (3.0, 1, "green"),
        (5.0, 1, "green"),
        (6.0, 2, "blue"),
        (8.0, 2, "blue"),
    ]
    assert (ending.frames, round(ending.seconds, 3), ending.damaged, ending.stopped) == (90, 8.9, 0, "")
    assert [frame.second for frame in read(path, every_s=2.0, scenes=False)[0]] == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert found[0].image.shape == (48, 96, 3)
    assert found[0].jpeg().startswith(b"\xff\xd8")


def test_a_video_is_read_to_its_limit(tmp_path: Path) -> None:
    found, ending = read(clip(tmp_path / "c.mp4"), every_s=1.0, scenes=False, most_s=4.0)
    assert [frame.second for frame in found] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert ending.stopped == "only the first 4 seconds are read"


def test_a_phone_that_was_held_upright(tmp_path: Path) -> None:
    data = clip(tmp_path / "c.mp4", ["red"]).read_bytes()
    straight = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    clockwise = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    track = data.index(b"tkhd")
    assert straight in data[track:]
    turned = data[:track] + data[track:].replace(straight, clockwise, 1)
    image = read(video.opened(turned))[0][0].image
    assert image.shape == (96, 48, 3)
    # The dark left half is above now.
    assert image[:40].mean() < image[-40:].mean()


def test_videos_that_break_off(tmp_path: Path) -> None:
    data = clip(tmp_path / "c.webm").read_bytes()
    found, ending = read(video.opened(data[: len(data) // 2]), every_s=1.0)
    assert found
    assert "breaks off" in ending.stopped
    hurt = bytearray(clip(tmp_path / "c.mp4").read_bytes())
    middle = hurt.index(b"mdat") + 400
    hurt[middle : middle + 300] = bytes(300)
    found, ending = read(video.opened(bytes(hurt)), every_s=1.0)
    assert found


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"Dear customer, here is the film", "no video"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "no video"),
        (b"\x00\x00\x00\x20ftypisom" + b"x" * 500, "cannot be opened"),
        (b"\x1a\x45\xdf\xa3" + b"x" * 500, "cannot be opened"),
    ],
)
def test_what_is_no_video(data: bytes, says: str) -> None:
    with pytest.raises(PictureError, match=says):
        read(video.opened(data))


def test_a_video_without_its_index(tmp_path: Path) -> None:
    data = clip(tmp_path / "c.mp4").read_bytes()
    with pytest.raises(PictureError, match="cannot be opened"):
        read(video.opened(data[: len(data) // 2]))
    with pytest.raises(KeepsightError, match="cannot be read"):
        read(tmp_path / "missing.mp4")


def test_a_coding_that_nobody_knows(tmp_path: Path) -> None:
    data = clip(tmp_path / "c.mp4").read_bytes()
    assert b"mp4v" in data
    with pytest.raises(PictureError):
        read(video.opened(data.replace(b"mp4v", b"x9zq").replace(b"esds", b"free")))


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    peaks = []
    for seconds in (2.0, 20.0):
        path = clip(tmp_path / f"{seconds:g}.mp4", ["red"], seconds=seconds, side=96)
        tracemalloc.start()
        for _ in video.frames(path, sampling=Sampling(every_s=0.1), ending=Ending()):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 100_000


@pytest.mark.parametrize(
    ("text", "seconds"), [("2s", 2.0), ("500ms", 0.5), ("1.5", 1.5), ("1min", 60.0), (" 2 S ", 2.0)]
)
def test_intervals(text: str, seconds: float) -> None:
    assert video.interval(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "0s", "1ms", "2h", "-1s", "90min", "1e3"])
def test_what_is_no_interval(text: str) -> None:
    with pytest.raises(BadInputError, match="no interval"):
        video.interval(text)


def test_without_pyav_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"keepsight\[video\]"):
        read(video.opened(b"x"))


def test_clips_come_in_as_frames(tmp_path: Path) -> None:
    (tmp_path / "keepsight.yaml").write_text("projects: {shop: {}}\n")
    ws = Workspace.open(tmp_path, environment={}, clock=lambda: 1000.0)
    ws.ensure_project("shop")
    one = clip(tmp_path / "in" / "till.mp4", ["red", "green"], seconds=2)
    (tmp_path / "in" / "bad.mp4").write_text("x")
    (tmp_path / "in" / "notes.txt").write_text("x")
    report = importers.import_path(ws, "shop", one.parent, author="me", every_s=1.0)
    assert (report.kind, report.added, [item.name for item in report.rejected]) == ("videos", 2, ["bad.mp4"])
    # Frames that are equal to the last bit are one picture.
    rows = samples.current(ws, "shop")
    assert {(row.group, row.meta["video"], row.value is None) for row in rows} == {("till.mp4", "till.mp4", True)}
    assert {row.name for row in rows} == {"till.mp4/00000.000.jpg", "till.mp4/00002.000.jpg"}
    labelled = clip(tmp_path / "classes" / "blue" / "c.webm", ["blue"], seconds=1)
    report = importers.import_path(ws, "shop", labelled.parents[1], author="me", split="test")
    assert report.kind == "class folders"
    found = {row.name: row for row in samples.current(ws, "shop") if row.value is not None}
    assert {(row.value["label"], row.split, row.group) for row in found.values() if row.value} == {
        ("blue", "test", "blue/c.webm")
    }
    assert np.all([name.startswith("blue/c.webm/") for name in found])
    ws.close()
