"""Frames of a video (mp4, mov, webm) as pictures: one each interval, and one after each cut; read as a stream.

A frame is decoded, looked at and let go before the next, so memory does not grow with the length of the video. The
container is told by its first bytes and no name inside it is followed: a play list that names other files or addresses
is not opened.
"""

from __future__ import annotations

import io
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from keepsight.errors import BadInputError, MissingExtraError, PictureError, PictureTooLargeError, StorageError
from keepsight.runtime.decode import DEFAULT_LIMITS, Picture

SUFFIXES = frozenset({".m4v", ".mkv", ".mov", ".mp4", ".webm"})

# The container by its first bytes, as FFmpeg's demuxer is called. An MP4 begins with the size of its first part.
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_EBML = b"\x1a\x45\xdf\xa3"
_HEAD = 12

# A cut: this share of the grey range between two frames reduced to _LOOK, as a mean over the pixels.
_CUT = 0.12
_LOOK = (32, 18)
# Times of frames are whole ticks of a clock; 0.2 s may be a tick early.
_TICK_S = 0.002
# Frames looked at for cuts, per second; a fade between two of them counts as one cut.
_LOOKS_PER_S = 5

# More frames than this per second are a broken clock, not a camera.
_MOST_PER_S = 480
_MOST_DAMAGED = 100

# A video that ends this much before the length that its header promises breaks off.
_MISSING_S, _MISSING_SHARE = 1.5, 0.02

_EVERY = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0}
SHORTEST_S, LONGEST_S = 0.02, 3600.0


@dataclass(frozen=True)
class Sampling:
    """Which frames are taken.

    Attributes:
        every_s: One each so many seconds.
        scenes: One after each cut, too.
        most_s: The video is read up to here; None: to its end.
    """

    every_s: float = 1.0
    scenes: bool = True
    most_s: float | None = None


@dataclass(frozen=True)
class Frame:
    """One frame that was taken.

    Attributes:
        second: Since the first frame.
        number: Of the frame in the video, from 0.
        scene: How many cuts lie before it.
        image: RGB, uint8 (height, width, 3), upright.
    """

    second: float
    number: int
    scene: int
    image: Picture

    def jpeg(self) -> bytes:
        """The frame as a JPEG file of high quality."""
        content: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(self.image), quality=92, colorsubsampling="444")
        return content


@dataclass
class Ending:
    """What is known of a video once its frames were read.

    Attributes:
        seconds: Up to its last frame that was read.
        frames: How many were decoded.
        damaged: Parts that could not be decoded.
        stopped: Why it was not read to its end, in words; empty if it was.
    """

    seconds: float = 0.0
    frames: int = 0
    damaged: int = 0
    stopped: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` and REST."""
        return {
            "seconds": round(self.seconds, 3),
            "decoded": self.frames,
            "damaged": self.damaged,
            "stopped": self.stopped,
        }


def is_video(path: Path) -> bool:
    """Whether a file is called like a video."""
    return path.suffix.lower() in SUFFIXES


def interval(text: str) -> float:
    """The seconds meant by "2s", "500ms", "1.5" or "1min".

    Raises:
        BadInputError: It is no interval, or none from 20 ms to an hour.
    """
    found = _EVERY.fullmatch(text.strip().lower())
    seconds = float(found[1]) * _UNITS[found[2] or "s"] if found else 0.0
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise BadInputError(
            f'"{text[:40]}" is no interval between frames.',
            expected="a time from 20ms to 60min, as in 2s, 500ms or 1min.",
            do="Use --every 1s for a frame each second.",
        )
    return seconds


def frames(source: Path | BinaryIO, *, sampling: Sampling, ending: Ending) -> Generator[Frame, None, None]:
    """The frames of a video in their order; ``ending`` is filled while they are read.

    What cannot be decoded inside a video is left out and counted; a video that breaks off ends there.

    Args:
        source: A file, by its path or opened (it must be seekable).
        sampling: Which frames.
        ending: Is told how it went.

    Raises:
        MissingExtraError: PyAV is not installed.
        PictureError: It is no video, or holds no picture that can be decoded.
        PictureTooLargeError: Its frames have too many pixels.
        StorageError: The file cannot be read.
    """
    av = _library()
    try:
        file = source.open("rb") if isinstance(source, Path) else source
    except OSError as error:
        raise StorageError(
            f"{source} cannot be read: {error.strerror}.", expected="a readable file.", do="Check the path."
        ) from None
    try:
        format = _container(file)
        try:
            with av.open(file, mode="r", format=format, metadata_errors="replace") as container:
                yield from _sampled(av, container, sampling=sampling, ending=ending)
        except av.error.FFmpegError as error:
            if not ending.frames:
                raise _no_video(f"The video cannot be opened ({_words(error)}).") from None
            ending.stopped = f"it breaks off ({_words(error)})"
    finally:
        if isinstance(source, Path):
            file.close()
    if not ending.frames:
        raise _no_video("The video holds no picture that can be decoded.")


def _library() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError(
            f"PyAV cannot be loaded, which reads videos ({error}).",
            expected='the extra "video".',
            do="Run `pip install keepsight[video]`, or take pictures out of the video yourself.",
        ) from None
    return av


def _container(file: BinaryIO) -> str:
    head = file.read(_HEAD)
    file.seek(0)
    if head.startswith(_EBML):
        return "matroska"
    if head[4:8] in _BOXES:
        return "mov"
    raise _no_video("By its first bytes it is no video." if head else "The video is empty.")


def _no_video(found: str) -> PictureError:
    return PictureError(found, expected="an mp4, mov or webm file.", do="Check the file, or export the video again.")


def _words(error: Exception) -> str:
    return str(error).partition(":")[0].removeprefix("[Errno ").partition("] ")[2] or type(error).__name__


def _sampled(av: Any, container: Any, *, sampling: Sampling, ending: Ending) -> Iterator[Frame]:
    if not container.streams.video:
        raise _no_video("The file holds no video, only other streams.")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise _no_video("The video is coded in a way that is not known here.")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > DEFAULT_LIMITS.max_pixels:
        raise PictureTooLargeError(
            f"The frames of the video have {width} x {height} pixels.",
            expected=f"at most {DEFAULT_LIMITS.max_pixels:,} pixels.",
            do="Save a smaller version of the video.",
        )
    # Threads hold frames of their own: two are enough, and memory stays small.
    stream.thread_type, stream.codec_context.thread_count = "AUTO", 2
    choice = _Choice(sampling)
    first: float | None = None
    for number, frame in enumerate(_decoded(av, container, stream, ending)):
        moment = _second(frame, number, stream)
        first = moment if first is None else first
        second = max(ending.seconds, moment - first)
        if sampling.most_s is not None and second > sampling.most_s:
            ending.stopped = f"only the first {sampling.most_s:g} seconds are read"
            return
        if number > _MOST_PER_S * (second + 10):
            ending.stopped = f"its clock stands still at {second:g} seconds"
            return
        ending.seconds, ending.frames = second, number + 1
        if choice.takes(frame, second):
            yield Frame(round(second, 3), number, choice.scene, _upright(frame))
    promised = (container.duration or 0) / 1e6
    if not ending.stopped and promised - ending.seconds > max(_MISSING_S, _MISSING_SHARE * promised):
        ending.stopped = f"it breaks off at {ending.seconds:g} of {promised:g} seconds"


def _decoded(av: Any, container: Any, stream: Any, ending: Ending) -> Iterator[Any]:
    """Every frame; packets that cannot be decoded are counted, and too many of them end the video."""
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            ending.damaged += 1
            if ending.damaged >= _MOST_DAMAGED:
                ending.stopped = "too much of it cannot be decoded"
                return


def _second(frame: Any, number: int, stream: Any) -> float:
    if frame.time is not None:
        return float(frame.time)
    rate = float(stream.average_rate or 25)
    return number / rate


class _Choice:
    """Decides which frames are taken, and counts scenes."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._next = 0.0
        self._next_look = 0.0
        self._before: NDArray[np.float32] | None = None
        self.scene = 0

    def takes(self, frame: Any, second: float) -> bool:
        cut = self._sampling.scenes and self._cut(frame, second)
        self.scene += cut
        if not cut and second < self._next - _TICK_S:
            return False
        # The beat goes on, however late a frame came; after a cut it begins anew.
        every = self._sampling.every_s
        missed = int((second - self._next + _TICK_S) // every)
        self._next = second + every if cut else self._next + every * (1 + max(0, missed))
        return True

    def _cut(self, frame: Any, second: float) -> bool:
        if second < self._next_look - _TICK_S:
            return False
        self._next_look = second + 1 / _LOOKS_PER_S
        small = frame.reformat(width=_LOOK[0], height=_LOOK[1], format="gray").to_ndarray().astype(np.float32)
        before, self._before = self._before, small
        return before is not None and float(np.abs(small - before).mean()) > 255 * _CUT


def _upright(frame: Any) -> Picture:
    """The frame as people see it: phones note how they were held instead of turning the picture."""
    image: Picture = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def opened(data: bytes) -> BinaryIO:
    """Bytes as a file that ``frames`` takes."""
    return io.BytesIO(data)
