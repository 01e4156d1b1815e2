"""Galleries inside stored bundles: registered with their pictures, and rewritten when one is erased."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from keepsight.data import gallery, rows
from keepsight.errors import KeepsightError, StorageError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.outputs.recognition.engine import space_of
from keepsight.runtime.outputs.recognition.gallery import PART, Gallery
from keepsight.store import audit, schema
from keepsight.store.workspace import Workspace

log = logging.getLogger(__name__)
_VARIANTS = ("float", "int8")


def note(ws: Workspace, project: str, bundle: Bundle) -> None:
    """Registers the pictures that a bundle's gallery was made from; nothing to do for a bundle without one.

    A sample that had been taken out and is in the data set again counts again.
    """
    if PART not in bundle.parts:
        return
    ids = sorted(Gallery.read(bundle.part(PART)).samples())
    member = schema.membership
    pictures: dict[str, str] = {}
    with ws.database.read() as connection:
        for part in rows.chunks(ids):
            query = sa.select(member.c.sample_id, member.c.picture_id).where(
                member.c.project_id == project, member.c.sample_id.in_(part), member.c.removed_in.is_(None)
            )
            pictures.update({row.sample_id: row.picture_id for row in connection.execute(query)})
    table = schema.gallery
    with ws.database.write("derived") as connection:
        gallery.register(connection, project, sorted(pictures.values()), now=ws.clock())
        for part in rows.chunks(sorted(pictures)):
            out = (table.c.project_id == project) & (table.c.space == gallery.OUT)
            connection.execute(sa.delete(table).where(out, table.c.sample_id.in_(part)))


def with_changes(ws: Workspace, project: str, bundle: Bundle, *, number: int) -> Bundle:
    """The bundle with the gallery as it is now: what was enrolled since it was made, without what was taken out.

    A bundle without a gallery, or one that nothing was changed in, is given back as it is. Any other has a digest of
    its own, so it carries its model's number, by which the workspace knows the events that it sends.
    """
    if PART not in bundle.parts:
        return bundle
    known = Gallery.read(bundle.part(PART))
    found = gallery.changes(ws, project, space=space_of(bundle), since=0)
    if not (found.put or found.gone):
        return bundle
    known.drop(found.gone)
    known.put(found.put)
    return _with(bundle, known, extra={**bundle.info.extra, "model_number": number})


def forget(ws: Workspace, project: str, sample_ids: Sequence[str], *, actor: str) -> list[int]:
    """Rewrites the project's stored bundles that hold views of these samples; the numbers of their models.

    The networks stay as they are; digest and gallery are new, and the bundle before is erased.
    """
    table = schema.model
    with ws.database.read() as connection:
        models = connection.execute(
            sa.select(table.c.number, table.c.blob_id).where(table.c.project_id == project).order_by(table.c.number)
        ).all()
    rewritten = []
    for number, blob_id in models:
        try:
            bundle = Bundle.from_bytes(ws.blobs.get(blob_id))
        except KeepsightError as error:
            if isinstance(error, StorageError) and not isinstance(error.__cause__, FileNotFoundError):
                raise  # a store that is away: the erasure has to be asked for again
            log.warning("Model %d of %s cannot be read, so nothing was erased from it: %s", number, project, error)
            continue
        if PART not in bundle.parts:
            continue
        known = Gallery.read(bundle.part(PART))
        if not known.samples() & set(sample_ids):
            continue
        known.drop(sample_ids)
        _replace(ws, project, number, blob_id, _with(bundle, known), actor=actor)
        rewritten.append(number)
    return rewritten


def _with(bundle: Bundle, known: Gallery, *, extra: Mapping[str, Any] | None = None) -> Bundle:
    parts = {name: bundle.part(name) for name in bundle.parts}
    references = {variant: arrays for variant in _VARIANTS if (arrays := bundle.reference(variant)) is not None}
    return Bundle.create(
        replace(bundle.info, labels=tuple(known.names()), extra=bundle.info.extra if extra is None else extra),
        model=bundle.model(),
        int8_model=bundle.model("int8") if "int8" in bundle.variants else None,
        references=references,
        parts={**parts, PART: known.to_bytes()},
    )


def _replace(ws: Workspace, project: str, number: int, old: str, made: Bundle, *, actor: str) -> None:
    blob_id = ws.blobs.put(made.zip_bytes(), now=ws.clock())
    table = schema.model
    values: dict[str, Any] = {"blob_id": blob_id, "bundle_digest": made.digest}
    with ws.database.write() as connection:
        connection.execute(
            sa.update(table).where(table.c.project_id == project, table.c.number == number).values(values)
        )
        audit.append(
            ws.database,
            connection,
            actor=actor,
            action="model.rewrite",
            target=f"{project}@{number}",
            now=ws.clock(),
            detail={"reason": "an enrolled picture was erased", "bundle": made.digest},
        )
        used = connection.scalar(sa.select(sa.func.count()).select_from(table).where(table.c.blob_id == old))
        if not used:
            ws.blobs.erase(connection, old, now=ws.clock())
