"""A report as a document: titles, paragraphs, tables, plots and pictures; ``markdown`` and ``html`` write it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from keepsight.training.reports import plots, words
from keepsight.training.reports.content import Content
from keepsight.training.reports.pictures import Shown

MOST_CLASSES = 40
MOST_CONFUSIONS = 15
MOST_SLICES = 30


@dataclass(frozen=True)
class Table:
    """Cells as texts; a column whose name stands in ``numbers`` is set to the right."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plot:
    """A drawing; where none can be shown, the table beside it says the same."""

    svg: str


@dataclass(frozen=True)
class Gallery:
    """Mistakes as pictures."""

    shown: tuple[Shown, ...]


@dataclass(frozen=True)
class Checks:
    """The gate's checks: status (a key of ``words.STATUSES``) and reason."""

    rows: tuple[tuple[str, str], ...]


Block = str | Table | Plot | Gallery | Checks


@dataclass(frozen=True)
class Section:
    """A title and what stands under it, in order; a text is a paragraph."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """The report."""

    title: str
    subtitle: str
    summary: str
    sections: tuple[Section, ...] = field(default=())


def document(content: Content, *, shown: Sequence[Shown] = ()) -> Document:
    """The report about a model; ``shown`` are its mistakes as pictures."""
    model = content.model
    made = datetime.fromtimestamp(model.created_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    sections = (
        _gate(content),
        _figures(content),
        _classes(content),
        _slices(content),
        _robustness(content),
        _calibration(content),
        _confusions(content),
        _mistakes(content, shown),
        _run(content),
    )
    return Document(
        title=f"Model {model.number} of {content.project}",
        subtitle=f"{model.status}, made {made}",
        summary=words.summary(content),
        sections=tuple(section for section in sections if section is not None),
    )


def _gate(content: Content) -> Section | None:
    gate = content.gate
    if gate is None:
        return None
    decision = words.DECISIONS.get(gate["decision"], gate["decision"])
    checks = tuple((words.status(check), check["reason"]) for check in gate["checks"])
    blocks: tuple[Block, ...] = (decision, Checks(checks)) if checks else (decision,)
    return Section("May it be released?", blocks)


def _figures(content: Content) -> Section | None:
    rows = [(name, words.span(figure)) for name, figure in content.figures()]
    evaluation = content.evaluation
    if evaluation.get("latency_ms"):
        found = evaluation["latency_ms"]
        rows.append(
            ("time for a picture, one thread", f"{found['p50']:.1f} ms; 95 of 100 within {found['p95']:.1f} ms")
        )
    if evaluation.get("size_bytes"):
        sizes = [f"{words.size(size)} ({kind})" for kind, size in evaluation["size_bytes"].items() if size]
        rows.append(("size of the network", ", ".join(sizes)))
    if evaluation.get("parameters"):
        rows.append(("weights", f"{evaluation['parameters']:,}"))
    if not rows:
        return None
    return Section(
        "How good is it?",
        (
            "On test pictures, which no model has seen in training. In brackets: where the figure lies with 95 % "
            "certainty. The fewer pictures, the wider.",
            Table(("figure", "value"), tuple(rows)),
        ),
    )


def _classes(content: Content) -> Section | None:
    rows = content.per_class()
    if not rows:
        return None
    few = rows[:MOST_CLASSES]
    told = f"The {len(few)} weakest of {len(rows)} classes." if len(rows) > len(few) else "The weakest first."
    absent = content.metrics.get("absent", [])
    if absent:
        told += f" {len(absent)} {'class has' if len(absent) == 1 else 'classes have'} no test pictures."
    return Section(
        "Class by class",
        (
            told,
            Plot(
                plots.bars(
                    [
                        plots.Bar(name, row["f1"]["value"], row["f1"]["low"], row["f1"]["high"], f"of {row['support']}")
                        for name, row in few
                    ],
                    title="F1 of each class",
                )
            ),
            Table(
                ("class", "test pictures", "precision", "recall", "F1"),
                tuple(
                    (
                        name,
                        str(row["support"]),
                        words.span(row["precision"]),
                        words.span(row["recall"]),
                        words.span(row["f1"]),
                    )
                    for name, row in few
                ),
                numbers=("test pictures",),
            ),
        ),
    )


def _slices(content: Content) -> Section | None:
    rows = content.slices()
    if not rows:
        return None
    few = rows[:MOST_SLICES]
    told = (
        "Every column of the pictures' metadata, and light, sharpness and size as measured. "
        '"Clear" differences are those that chance would hardly show among so many.'
    )
    if len(rows) > len(few):
        told += f" The {len(few)} weakest of {len(rows)}."
    return Section(
        "Parts of the pictures",
        (
            told,
            Plot(
                plots.bars(
                    [_bar(words.slice_name(row), row["accuracy"], f"of {row['n']}") for row in few],
                    title="Right answers by slice",
                )
            ),
            Table(
                ("slice", "test pictures", "right", "against the rest, points", "clear"),
                tuple(
                    (
                        words.slice_name(row),
                        str(row["n"]),
                        words.span(row["accuracy"]),
                        words.points(row["difference"]),
                        "yes" if row.get("clear") else "",
                    )
                    for row in few
                ),
                numbers=("test pictures",),
            ),
        ),
    )


def _robustness(content: Content) -> Section | None:
    rows = content.robustness()
    if not rows:
        return None
    clean = rows[0]["clean"]
    return Section(
        "Bad pictures",
        (
            f"The same {words.pictures(rows[0]['n'])}, made worse on purpose. As they are, it is right on "
            f"{words.span(clean)}" + (" (dashed line)." if clean["value"] is not None else "."),
            Plot(
                plots.bars(
                    [
                        plots.Bar(
                            row["name"].replace("_", " "),
                            row["accuracy"]["value"],
                            row["accuracy"]["low"],
                            row["accuracy"]["high"],
                            mark=clean["value"],
                        )
                        for row in rows
                    ],
                    title="Right answers on pictures made worse",
                )
            ),
            Table(
                ("pictures are", "right", "kept"),
                tuple((row["text"], words.span(row["accuracy"]), words.percent(row["kept"])) for row in rows),
                numbers=("kept",),
            ),
        ),
    )


def _calibration(content: Content) -> Section | None:
    found = content.evaluation.get("calibration")
    if not found or found["after"]["ece"] is None:
        return None
    return Section(
        "Does it know when it is wrong?",
        (
            words.calibration(found),
            Plot(
                plots.reliability(
                    (found["before"] or {"bins": []})["bins"],
                    found["after"]["bins"],
                    title="Confidence against right answers",
                )
            ),
            Table(
                ("confidence", "pictures", "sure", "right"),
                tuple(
                    (
                        f"{100 * row['low']:.0f} to {100 * row['high']:.0f} %",
                        str(row["n"]),
                        words.percent(row["confidence"]),
                        words.percent(row["accuracy"]),
                    )
                    for row in found["after"]["bins"]
                    if row["n"]
                ),
                numbers=("pictures", "sure", "right"),
            ),
        ),
    )


def _confusions(content: Content) -> Section | None:
    rows = content.confusions()
    if not rows:
        return None
    few = rows[:MOST_CONFUSIONS]
    names = content.metrics["names"]
    plot: tuple[Block, ...] = ()
    if len(names) <= plots.MOST_CELLS:
        plot = (Plot(plots.confusion(names, content.metrics["confusion"], title="What is taken for what")),)
    return Section(
        "What it confuses",
        (
            *plot,
            Table(
                ("pictures of", "taken for", "times"),
                tuple((true, told, str(count)) for true, told, count in few),
                numbers=("times",),
            ),
        ),
    )


def _mistakes(content: Content, shown: Sequence[Shown]) -> Section | None:
    rows: list[dict[str, Any]] = content.evaluation.get("mistakes", [])
    if not rows:
        return None
    told = f"The {len(rows)} wrong answers that the model was surest of." if len(rows) > 1 else "Its one wrong answer."
    told += " Where such a picture carries the wrong label, correct it: the next training counts it."
    if not shown:
        return Section("What it gets wrong", (told, _mistake_table(rows)))
    how = content.evaluation.get("explained_by")
    told += (
        f" Lit is where the model looked for its answer ({how}); below stand the training pictures that look most "
        "alike to the model."
        if how
        else " Below each stand the training pictures that look most alike to the model; where it looked cannot be "
        "shown, since this network pools no map."
    )
    if len(shown) < len(rows):
        told += f" Shown are the first {len(shown)}."
    return Section("What it gets wrong", (told, Gallery(tuple(shown)), _mistake_table(rows)))


def _mistake_table(rows: Sequence[dict[str, Any]]) -> Table:
    return Table(
        ("picture", "label", "answer", "sure", "most alike"),
        tuple(
            (
                row["sample_id"][:12],
                row["label"],
                row["predicted"],
                words.percent(row["confidence"]),
                ", ".join(f"{entry['label']} ({entry['cosine']:.2f})" for entry in row["nearest"]) or "–",
            )
            for row in rows
        ),
        numbers=("sure",),
    )


def _run(content: Content) -> Section:
    return Section("How it was made", (Table(("what", "value"), tuple(words.run(content))),))


def _bar(name: str, figure: Any, note: str) -> plots.Bar:
    return plots.Bar(name, figure["value"], figure["low"], figure["high"], note)
