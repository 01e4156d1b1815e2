"""``predict-video``: a video answered frame by frame, each logged like a picture, and merged into segments."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, BinaryIO, cast

from starlette.requests import Request

from keepsight.data import scenes, video
from keepsight.data.video import Ending, Frame, Sampling
from keepsight.errors import BadInputError, NotReadyError, PictureError
from keepsight.serving.answers import RETRY_AFTER_S, trace_of
from keepsight.serving.answers import Request as PictureRequest
from keepsight.serving.bodies import limited, told
from keepsight.serving.events import Served

MAX_BYTES = 1024**3
# Frames whose answers are computed while the next is decoded.
AHEAD = 4

# How often a frame is sent again where too much waits.
TRIES = 5
Answer = Callable[[bytes, PictureRequest], Awaitable[dict[str, Any]]]

DOC: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"video/*": {"schema": {"type": "string", "format": "binary"}}},
    },
    "parameters": [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}, "description": text}
        for name, text in (
            ("every", "Time between two frames, as in 2s or 500ms; 1s when not given."),
            ("scenes", "false: no further frame after each cut."),
            ("source", "Camera, shop or client."),
            ("group", "What belongs together; the video itself when not given."),
            ("meta.NAME", "Any further fact."),
        )
    ],
}


async def answered(request: Request, served: Served, *, answer: Answer) -> dict[str, Any]:
    """``{"frames": [...], "segments": [...], "video": {...}}`` for the video that is the request's body.

    The body is kept on disk while it is read, under no name; of the video one frame at a time is in memory.

    Raises:
        BadInputError: A wrong parameter, or no body. PictureError: It is no video.
        PictureTooLargeError: It has more than ``MAX_BYTES``. MissingExtraError: PyAV is not installed.
    """
    said = dict(request.query_params)
    sampling = Sampling(
        every_s=video.interval(said.pop("every", "1s")),
        scenes=_yes(said.pop("scenes", "true")),
        most_s=served.settings.video_s,
    )
    source, meta = told(said)
    trace = trace_of(request.headers.get("traceparent")) or uuid.uuid4().hex
    meta.setdefault("group", f"video {trace[:12]}")
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise BadInputError(
            "The video comes in a form.",
            expected="the video itself as the body.",
            do="For example: curl --data-binary @clip.mp4 URL.",
        )
    with tempfile.TemporaryFile() as file:
        async for chunk in limited(request, limit=MAX_BYTES):
            await asyncio.to_thread(file.write, chunk)
        file.seek(0)
        asked = PictureRequest(source=source, meta=meta, trace_id=trace)
        return await _frames(cast(BinaryIO, file), asked, sampling=sampling, answer=answer)


async def _frames(file: BinaryIO, asked: PictureRequest, *, sampling: Sampling, answer: Answer) -> dict[str, Any]:
    ending = Ending()
    frames = video.frames(file, sampling=sampling, ending=ending)
    rows: list[dict[str, Any]] = []
    waiting: deque[asyncio.Task[dict[str, Any]]] = deque()
    try:
        while (frame := await asyncio.to_thread(next, frames, None)) is not None:
            waiting.append(asyncio.create_task(_row(frame, asked, answer=answer)))
            if len(waiting) > AHEAD:
                rows.append(await waiting.popleft())
        while waiting:
            rows.append(await waiting.popleft())
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.to_thread(frames.close)
    return {
        "frames": rows,
        "segments": await asyncio.to_thread(scenes.segments, rows, seconds=ending.seconds),
        "video": {**ending.as_dict(), "trace_id": asked.trace_id},
    }


async def _row(frame: Frame, asked: PictureRequest, *, answer: Answer) -> dict[str, Any]:
    data = await asyncio.to_thread(frame.jpeg)
    meta = {**asked.meta, "second": f"{frame.second:g}"}
    place = {"second": frame.second, "scene": frame.scene}
    for left in reversed(range(TRIES)):
        try:
            return {**place, **await answer(data, PictureRequest(asked.source, meta, asked.trace_id))}
        except NotReadyError as error:
            # Too much waits just now; frames can wait too.
            if not left:
                return {**place, **error.as_dict()}
            await asyncio.sleep(RETRY_AFTER_S)
        except PictureError as error:
            return {**place, **error.as_dict()}
    raise AssertionError("a try ends in an answer or an error")


def _yes(text: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in known:
        raise BadInputError(
            f'scenes is "{text[:40]}".', expected="true or false.", do="Leave it out to get a frame after each cut."
        )
    return known[text.lower()]
