"""Reading requests: bodies within their limits, pictures out of raw or multipart bodies, JSON objects."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, NoReturn

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from keepsight.errors import BadInputError, PictureTooLargeError
from keepsight.serving.events import MAX_SOURCE, plain_text

PICTURE_FIELDS = ("picture", "file")
BACKGROUND_FIELD = "background"
# How an answer may leave: as JSON, or as a picture where the task makes one.
FORMS = ("json", "picture")
META_PREFIX = "meta."
MAX_FILES = 100
MAX_META = 50
MAX_META_TEXT = 1000


@dataclass(frozen=True)
class Pictures:
    """What a predict request carried.

    Attributes:
        files: The pictures' bytes in their order.
        many: Whether the answer is a list.
        source: Camera, shop or client; empty if it was not said.
        meta: What was said as ``meta.NAME``, and ``group``.
        form: How the answer is to leave, one of `FORMS`.
        background: Of an answer that is a picture: a colour as text, or the bytes of a picture; empty for none.
    """

    files: list[bytes]
    many: bool
    source: str
    meta: dict[str, str]
    form: str = "json"
    background: str | bytes = ""


async def read_body(request: Request, *, limit: int) -> bytes:
    """The whole body.

    Raises:
        PictureTooLargeError: It has more than ``limit`` bytes.
    """
    return b"".join([chunk async for chunk in limited(request, limit=limit)])


async def read_json(request: Request, *, limit: int) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        BadInputError: It is none. PictureTooLargeError: It is too long.
    """
    body = await read_body(request, limit=limit)
    try:
        content = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BadInputError(
            f"The body is no JSON ({str(error)[:200]}).",
            expected="a JSON object.",
            do="Correct it; check the quotes.",
        ) from None
    if not isinstance(content, dict):
        raise BadInputError(
            f"The body is a JSON {type(content).__name__}.", expected="a JSON object.", do="Send {...}."
        )
    return content


async def read_pictures(request: Request, *, limit: int) -> Pictures:
    """The pictures of a predict request and what was said with them.

    A multipart form holds them as ``picture`` or ``file``; any other body is one picture itself, whatever its content
    type says. ``source``, ``group`` and ``meta.NAME`` stand in the query or the form; ``X-Keepsight-Source`` and
    ``X-Keepsight-Group`` say the same in headers.

    Raises:
        BadInputError: There is no picture. PictureTooLargeError: The body is longer than ``limit`` bytes for a raw
            picture, or four times that for a form.
    """
    said: dict[str, str] = {}
    for name in ("source", "group"):
        header = request.headers.get(f"x-keepsight-{name}")
        if header is not None:
            said[name] = header
    if request.scope["query_string"]:
        said.update(request.query_params)
    files: list[bytes]
    others: dict[str, bytes] = {BACKGROUND_FIELD: b""}
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        files, fields = await read_form(request, limit=4 * limit, others=others)
        said.update(fields)
    else:
        body = await read_body(request, limit=limit)
        files = [body] if body else []
    if not files:
        raise BadInputError(
            "The request carries no picture.",
            expected="a picture as the body, or one or more multipart fields named picture.",
            do="For example: curl --data-binary @photo.jpg URL, or curl -F picture=@photo.jpg URL.",
        )
    form, background = said.pop("as", "json"), said.pop(BACKGROUND_FIELD, "")
    if form not in FORMS:
        raise BadInputError(
            f'The answer is asked for as "{form[:40]}".',
            expected="one of " + ", ".join(FORMS) + ".",
            do="Write as=picture for a picture; leave it out for JSON.",
        )
    if form == "picture" and len(files) > 1:
        raise BadInputError(
            f"{len(files)} pictures were sent, and the answer is to be a picture.",
            expected="one picture in a request.",
            do="Send them one by one.",
        )
    source, meta = told(said)
    return Pictures(files, len(files) > 1, source, meta, form=form, background=others[BACKGROUND_FIELD] or background)


def told(said: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The source and the facts that parameters say.

    Raises:
        BadInputError: One of them is none of these, or there are too many.
    """
    source = plain_text("source", said.pop("source", ""), longest=MAX_SOURCE)
    meta: dict[str, str] = {}
    for name, value in said.items():
        key = name.removeprefix(META_PREFIX)
        if name != "group" and key == name:
            raise BadInputError(
                f'The request names a parameter "{name[:100]}".',
                expected="source, group, as, background, or facts of your own as meta.NAME.",
                do=f"Rename it to meta.{name[:100]}, or leave it out.",
            )
        meta[plain_text("the name of meta", key, longest=MAX_SOURCE)] = plain_text(
            name, value, longest=MAX_SOURCE if name == "group" else MAX_META_TEXT
        )
    if len(meta) > MAX_META:
        raise BadInputError(
            f"The request names {len(meta)} facts.", expected=f"at most {MAX_META}.", do="Leave the others out."
        )
    return source, meta


async def read_form(
    request: Request, *, limit: int, others: dict[str, bytes] | None = None
) -> tuple[list[bytes], dict[str, str]]:
    """The files of a multipart form in fields named picture or file, and its other fields.

    Raises:
        BadInputError: It cannot be read, or has a file in another field. PictureTooLargeError: It is too long.
    """
    parser = MultiPartParser(request.headers, limited(request, limit=limit), max_files=MAX_FILES, max_fields=MAX_META)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise BadInputError(
            f"The multipart form cannot be read: {error.message}",
            expected=f"a form of at most {MAX_FILES} pictures.",
            do="Let your HTTP library make the form and its boundary; send many pictures in several requests.",
        ) from None
    files: list[bytes] = []
    fields: dict[str, str] = {}
    try:
        for name, value in form.multi_items():
            if isinstance(value, str):
                fields[name] = value
            elif isinstance(value, UploadFile) and name in PICTURE_FIELDS:
                files.append(await value.read())
            elif isinstance(value, UploadFile) and name in (others or {}):
                (others or {})[name] = await value.read()
            else:
                raise BadInputError(
                    f'The form has a file in the field "{name[:100]}".',
                    expected="pictures in fields named picture.",
                    do="Rename the field.",
                )
    finally:
        await form.close()
    return files, fields


async def limited(request: Request, *, limit: int) -> AsyncGenerator[bytes, None]:
    """The body's chunks; too much is read on for a while, as a client that still sends does not read our answer."""
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else 0
    if size > 2 * limit:
        _too_large(limit)
    read = 0
    async for chunk in request.stream():
        read += len(chunk)
        if read > 2 * limit:
            break
        if read <= limit:
            yield chunk
    if read > limit:
        _too_large(limit)


def _too_large(limit: int) -> NoReturn:
    raise PictureTooLargeError(
        f"The request has more than {limit:,} bytes.",
        expected="at most that many.",
        do="Send less at once: a smaller version of the picture, or fewer pictures.",
        max_bytes=limit,
    )


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
