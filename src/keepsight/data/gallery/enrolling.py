"""Enrolling a picture under a name, and taking somebody out again: the data set and the live gallery together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keepsight import tasks
from keepsight.data import adding, rows, samples
from keepsight.data.gallery import Enrolling, NewView, add, check, take_out
from keepsight.errors import AnnotationError, ConflictError, NotFoundError, PictureError
from keepsight.runtime.decode import DEFAULT_LIMITS, Limits, read
from keepsight.store import audit, schema
from keepsight.store.workspace import Workspace

ORIGIN = "import"
JUDGING = ("test", "recent")


@dataclass(frozen=True)
class Enrolled:
    """One picture that was enrolled.

    Attributes:
        name: Whose, or what, it is.
        sample_id: Its sample in the data set.
        picture_id: The stored picture.
        box: The face in the picture, in pixels; None where the whole picture counts.
        revision: Servers that follow this far answer with it; 0 where no model was live, so that the next one knows it.
    """

    name: str
    sample_id: str
    picture_id: str
    box: tuple[float, float, float, float] | None
    revision: int

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` and REST."""
        return {
            "name": self.name,
            "sample_id": self.sample_id,
            "picture_id": self.picture_id,
            "box": None if self.box is None else list(self.box),
            "live": self.revision > 0,
            "revision": self.revision,
        }


@dataclass(frozen=True)
class TakenOut:
    """Who was taken out, with which samples (sample id, picture id)."""

    name: str
    samples: tuple[tuple[str, str], ...]


def enrol(
    ws: Workspace,
    project: str,
    name: str,
    data: bytes,
    *,
    engine: Enrolling | None,
    live: bool = True,
    actor: str,
    file_name: str = "",
    limits: Limits = DEFAULT_LIMITS,
) -> Enrolled:
    """Adds a picture of somebody, or something, to the data set and to the live gallery.

    Args:
        ws: The workspace.
        project: A project whose task has a gallery.
        name: Who or what it shows; a new one needs nothing else.
        data: The picture file.
        engine: Looks at the picture; None where there is none yet, and the next model will.
        live: Whether it is the engine of the live model, whose gallery the picture joins.
        actor: Who enrols; audited.
        file_name: For people.
        limits: The largest picture taken.

    Raises:
        AnnotationError: The name cannot be one. PictureError: The picture cannot be read, or shows no face or several.
        ConflictError: The picture judges models, or is enrolled under another name.
    """
    check(ws, project)
    task = tasks.get(ws.settings(project)["task"])
    value = task.canonical(task.parse({"label": name}))
    known = _name_in(value)
    image, info = read(data, min_side=None if engine is None else engine.min_side, limits=limits)
    view = None if engine is None else engine.view_to_enrol(image, (info.width, info.height))
    if view is not None and view.box is not None:
        value = task.canonical({"subjects": [{"label": known, "box": list(view.box)}]})
    picture_id = ws.blobs.name(data)
    sample_id = rows.sample_id(project, picture_id)
    _check_free(ws, project, sample_id, value)
    item = adding.NewSample(
        data=data, name=file_name or f"enrolled {known}", value=value, split="train", meta={"enrolled": True}
    )
    report = adding.add(ws, project, [item], author=actor, origin=ORIGIN, threads=1)
    if report.rejected:
        fault = report.rejected[0]
        raise PictureError(fault.text, expected="a picture that can be enrolled.", do="Correct it.", reason=fault.code)
    _note(ws, project, actor=actor, action="gallery.enrol", detail={"name": known, "sample": sample_id})
    revision = 0
    if live and engine is not None and view is not None:
        revision = add(ws, project, [NewView(sample_id, picture_id, known, view.vector)], space=engine.space)
    return Enrolled(known, sample_id, picture_id, None if view is None else view.box, revision)


def remove(ws: Workspace, project: str, name: str, *, actor: str, sample_id: str | None = None) -> TakenOut:
    """Takes somebody, or one of their pictures, out of the live gallery at once and out of the data set.

    Pictures that judge models (test, recent) stay: they show a stranger from now on. Old versions keep what they had;
    ``keepsight.data.erase`` removes pictures for good.

    Raises:
        NotFoundError: Nobody has that name, or not in that sample.
    """
    check(ws, project)
    task = tasks.get(ws.settings(project)["task"])
    mine = [row for row in samples.current(ws, project) if row.value and name in task.classes(row.value)]
    found = [row for row in mine if row.split not in JUDGING and sample_id in (None, row.sample_id)]
    if not found:
        known = {label for row in samples.current(ws, project) if row.value for label in task.classes(row.value)}
        if name in known and sample_id is None:
            raise NotFoundError(
                f'"{name}" has no picture in the gallery.',
                expected="somebody who is enrolled; their pictures in test and recent judge models and stay.",
                do="Nothing is left to take out.",
            )
        if sample_id is not None and name in known:
            raise NotFoundError.among(f"picture of {name}", sample_id, [row.sample_id for row in mine])
        raise NotFoundError.among("enrolled name", name, sorted(known))
    taken = tuple((row.sample_id, row.picture_id) for row in found)
    # First, so that what breaks off in between can be done again: the data set still says what is to go.
    take_out(ws, project, taken)
    with ws.database.write() as connection:
        for row in found:
            others = [item for item in (row.value or {})["subjects"] if item["label"] != name]
            if others:
                samples.annotate(
                    connection, ws, project, row.sample_id, {"subjects": others}, author=actor, origin=ORIGIN
                )
            else:
                samples.remove(connection, ws, project, row.sample_id)
        audit.append(
            ws.database,
            connection,
            actor=actor,
            action="gallery.remove",
            target=project,
            now=ws.clock(),
            detail={"name": name, "samples": [sample for sample, _ in taken]},
        )
    return TakenOut(name, taken)


def _name_in(value: Mapping[str, Any]) -> str:
    label = str(value["subjects"][0]["label"])
    if label == "unknown":
        raise AnnotationError(
            'Nobody can be enrolled as "unknown".',
            expected="a name.",
            do="Give the name that answers should have.",
        )
    return label


def _check_free(ws: Workspace, project: str, sample_id: str, value: Mapping[str, Any]) -> None:
    """Refuses a picture that is there for another purpose, or under another name."""
    with ws.database.read() as connection:
        member = rows.current(connection, schema.membership, project, [sample_id]).get(sample_id)
        note = rows.current(connection, schema.annotation, project, [sample_id]).get(sample_id)
        past = rows.past_splits(connection, project, [sample_id]).get(sample_id)
    stands = member["split"] if member is not None else past
    if stands in JUDGING:
        raise ConflictError(
            f"This picture stands in {stands}, where it judges models.",
            expected="a picture that no model is judged on.",
            do="Enrol another picture.",
            sample=sample_id,
        )
    task = tasks.get(ws.settings(project)["task"])
    if note is not None and task.classes(note["value"]) not in ((), task.classes(value)):
        was = ", ".join(task.classes(note["value"]))
        raise ConflictError(
            f'This picture is enrolled as "{was}" already.',
            expected="one name for one picture.",
            do=f'Take it out first (`keepsight gallery remove {project} "{was}" --sample {sample_id}`), or use another '
            "picture.",
            sample=sample_id,
        )


def _note(ws: Workspace, project: str, *, actor: str, action: str, detail: dict[str, Any]) -> None:
    with ws.database.write() as connection:
        audit.append(ws.database, connection, actor=actor, action=action, target=project, now=ws.clock(), detail=detail)
