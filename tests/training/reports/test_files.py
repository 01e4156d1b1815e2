"""The report as Markdown and as a page: whole, safe whatever the classes are called, and without a request."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from keepsight.errors import StorageError
from keepsight.store.workspace import Workspace
from keepsight.training.reports import html, markdown, plots, written
from keepsight.training.reports.document import document
from tests.training.reports.sample import BINS, content, evaluation, metrics, shown

SECTIONS = (
    "May it be released?", "How good is it?", "Class by class", "Parts of the pictures", "Bad pictures",
    "Does it know when it is wrong?", "What it confuses", "What it gets wrong", "How it was made",
)  # fmt: skip


class Balanced(HTMLParser):
    """Fails where a tag is closed that was not the last one opened."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Opened and closed at once, as in SVG."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag


def test_every_part_is_there_in_order() -> None:
    for text in (markdown.render(document(content())), html.render(document(content(), shown=[shown()]))):
        places = [text.index(title) for title in SECTIONS]
        assert places == sorted(places)
        for part in ("91.0 % (86.0 to 96.0)", "camera is door", "blurred (out of focus)", "0.0123 EUR", "13.8 MB"):
            assert part in text


def test_the_page_is_well_formed_and_asks_nobody() -> None:
    page = html.render(document(content(), shown=[shown()]))
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(?!data:)(https?:)?//", page)
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert page.count('src="data:image/jpeg;base64,') == 3
    assert "@media print" in page
    assert "prefers-color-scheme: dark" in page


def test_names_are_text_and_never_markup() -> None:
    name = '<script>alert("1")</script> | *x* `y` [z](http://evil)'
    found = metrics()
    found["names"] = ["apple", name, "quince"]
    found["per_class"][name] = found["per_class"].pop("pear")
    odd = content(metrics=found)
    page = html.render(document(odd, shown=[shown(name)]))
    assert "<script" not in page
    text = markdown.render(document(odd))
    assert "<script" not in text
    assert "[z](" not in text
    row = next(line for line in text.splitlines() if line.startswith("| &lt;script"))
    assert len(re.split(r"(?<!\\)\|", row)) == 7


def test_plots_are_well_formed_and_say_what_they_show() -> None:
    drawn = [
        plots.bars([plots.Bar("<a>", 0.5, 0.4, 0.6, "n", 0.7), plots.Bar("b", None)], title="Right & wrong"),
        plots.reliability(BINS, BINS, title="Confidence"),
        plots.reliability([], [], title="Nothing"),
        plots.confusion(["a", "<b>"], [[3, 1], [0, 0]], title="Confusions"),
    ]
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        assert root.get("aria-label")
        # A strict policy of the dashboard forbids inline style.
        assert " style=" not in svg


def test_many_classes_have_no_heat_map_but_their_confusions() -> None:
    names = [f"class {number}" for number in range(40)]
    table = [[10 if row == column else 0 for column in range(40)] for row in range(40)]
    table[3][4] = 7
    found = {**metrics(), "names": names, "confusion": table}
    page = html.render(document(content(metrics=found)))
    assert "What is taken for what" not in page
    assert "class 3" in page


@pytest.mark.parametrize("gone", sorted(evaluation()))
def test_whatever_is_missing_the_report_is_written(gone: str) -> None:
    left = {name: value for name, value in evaluation().items() if name != gone}
    for changed in (content(evaluation=left), content(evaluation={}, run=None), content(metrics={}, evaluation={})):
        assert "Model 7 of shop" in markdown.render(document(changed))
        assert "Model 7 of shop" in html.render(document(changed))


def test_a_folder_that_cannot_be_written_is_named(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        written.write(workspace, content(evaluation={}), tmp_path / "file" / "deep")
