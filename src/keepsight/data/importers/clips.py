"""Videos: one, or a folder of them. Their frames come in as pictures without an annotation, a group for each video.

In class folders and tables a video may stand for a picture, too: its frames then all get its label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keepsight.data import video
from keepsight.data.adding import MAX_GROUP, NewSample, Rejected
from keepsight.data.importers.marks import PARTS
from keepsight.data.importers.source import Entry, Source, beside, children, clean
from keepsight.data.video import Ending, Sampling
from keepsight.errors import PictureError, StorageError

NAME = "video"
KIND = "videos"
GIVES = PARTS
EXPECTED = "videos (mp4, mov, webm), whose frames are annotated later"


def looks(path: Path) -> bool:
    """Whether a file is a video by its name, or a folder holds some and no folders."""
    if path.is_file():
        return video.is_video(path)
    found = children(path)
    return any(video.is_video(item) for item in found) and not any(item.is_dir() for item in found)


def scan(path: Path) -> Source:
    """The videos at a path.

    Raises:
        StorageError: The folder cannot be read.
    """
    entries: list[Entry] = []
    skipped: list[Rejected] = []
    for item in [path] if path.is_file() else children(path):
        name = clean(item.name)
        if item.is_file() and video.is_video(item):
            entries.append(Entry(item, name))
        else:
            skipped.append(beside(item, name) or Rejected(name, "no_video", "By its name it is no video."))
    return Source(KIND, tuple(entries), skipped=tuple(skipped))


def samples(
    entry: Entry, *, value: Mapping[str, Any] | None, split: str, every_s: float
) -> Iterator[NewSample | Rejected]:
    """The frames of a video as they come: named after their second, in one group, labelled like the video.

    Raises:
        MissingExtraError: PyAV is not installed.
    """
    ending = Ending()
    try:
        for frame in video.frames(entry.path, sampling=Sampling(every_s=every_s), ending=ending):
            yield NewSample(
                frame.jpeg(),
                f"{entry.name}/{frame.second:09.3f}.jpg",
                value,
                split=split,
                group=entry.group or entry.name[-MAX_GROUP:],
                meta={**entry.meta, "video": entry.name, "second": f"{frame.second:g}", "scene": str(frame.scene)},
            )
    except (PictureError, StorageError) as error:
        yield Rejected(entry.name, error.code, f"{error.found} {error.do}")
        return
    if ending.stopped:
        yield Rejected(entry.name, "video_incomplete", f"The video was read to {ending.seconds:g} s: {ending.stopped}.")
