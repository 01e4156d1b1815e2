"""Importing what people have: class folders and tables, tidy or not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from keepsight.data import importers, samples
from keepsight.data.importers import ImportReport
from keepsight.errors import BadInputError, DataError, KeepsightError, NotFoundError
from keepsight.store import schema

from .conftest import Shop, build_picture

Load = Callable[..., ImportReport]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


@pytest.fixture
def load(shop: Shop, photos: Path) -> Load:
    def run(path: Path | None = None, **options: object) -> ImportReport:
        return importers.import_path(shop.workspace, "shop", path or photos, author="me", **options)  # type: ignore[arg-type]

    return run


def put(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(build_picture(seed))
    return path


def rows_of(shop: Shop) -> dict[str, tuple[str, str]]:
    """(label, split) by name."""
    return {
        item.name: ((item.value or {}).get("label", ""), item.split) for item in samples.current(shop.workspace, "shop")
    }


def codes(report: ImportReport) -> dict[str, str]:
    return {item.name: item.code for item in report.rejected}


def test_class_folders(shop: Shop, photos: Path, load: Load) -> None:
    put(photos / "apple" / "1.png", 1)
    put(photos / "apple" / "red" / "2.png", 2)
    put(photos / "pear" / "3.PNG", 3)
    report = load()
    assert (report.kind, report.added, report.rejected, report.skipped) == ("class folders", 3, (), ())
    assert rows_of(shop) == {
        "apple/1.png": ("apple", "pending"),
        "apple/red/2.png": ("apple", "pending"),
        "pear/3.PNG": ("pear", "pending"),
    }
    assert load().unchanged == 3


def test_split_folders(shop: Shop, photos: Path, load: Load) -> None:
    for seed, folder in enumerate(["Train", "validation", "test"]):
        put(photos / folder / "apple" / "1.png", seed)
    put(photos / "iconic" / "apple.png", 9)
    put(photos / "train.png", 8)
    report = load()
    assert {split for _, split in rows_of(shop).values()} == {"train", "val", "test"}
    assert codes(report) == {"train.png": "no_class_folder"}
    assert [(item.name, item.code) for item in report.skipped] == [("iconic", "not_a_split")]


def test_a_class_may_be_called_test(shop: Shop, photos: Path, load: Load) -> None:
    put(photos / "test" / "1.png", 1)
    put(photos / "other" / "2.png", 2)
    load()
    assert rows_of(shop)["test/1.png"] == ("test", "pending")


@pytest.mark.parametrize(("option", "expected"), [("auto", "test"), ("train", "train"), ("val", "val")])
def test_a_split_can_be_forced(shop: Shop, photos: Path, load: Load, option: str, expected: str) -> None:
    put(photos / "test" / "apple" / "1.png", 1)
    load(split=option)
    assert [split for _, split in rows_of(shop).values()] == [expected]


def test_what_lies_beside_pictures(shop: Shop, photos: Path, load: Load) -> None:
    put(photos / "apple" / "1.png", 1)
    put(photos / "apple" / ".hidden.png", 2)
    put(photos / ".cache" / "3.png", 3)
    put(photos / "__MACOSX" / "apple" / "4.png", 4)
    for name in ("Thumbs.db", ".DS_Store", "apple/.DS_Store", "apple/notes.txt", "LICENSE", "apple/data.json"):
        (photos / name).write_text("x")
    (photos / "apple" / "letter.jpg").write_text("Dear customer,")
    (photos / "pear").mkdir()
    put(photos / "stray.png", 5)
    report = load()
    assert list(rows_of(shop)) == ["apple/1.png"]
    assert codes(report) == {"apple/letter.jpg": "picture_unreadable", "stray.png": "no_class_folder"}
    assert {item.name for item in report.skipped} == {"apple/notes.txt", "apple/data.json", "LICENSE"}
    assert report.as_dict()["skipped"][0]["code"] == "no_picture"


def test_two_labels_for_one_picture(shop: Shop, photos: Path, load: Load) -> None:
    put(photos / "apple" / "1.png", 1)
    put(photos / "pear" / "copy.png", 1)
    assert codes(load()) == {"pear/copy.png": "conflicting_labels"}
    assert list(rows_of(shop).values()) == [("", "pending")]


def test_names_that_other_systems_write(shop: Shop, photos: Path, load: Load) -> None:
    put(photos / "A\u0308pfel" / "1.png", 1)  # macOS: A and two dots
    put(photos / "\u00c4pfel" / "2.png", 2)
    put(Path(os.fsdecode(os.fsencode(photos) + b"/caf\xe9/3.png")), 3)  # Latin-1 from an old archive
    load()
    assert sorted(label for label, _ in rows_of(shop).values()) == ["caf\ufffd", "\u00c4pfel", "\u00c4pfel"]


def test_warnings_and_progress(photos: Path, load: Load) -> None:
    seen: list[tuple[int, int]] = []
    put(photos / "apple" / "1.png", 1)
    put(photos / "apple" / "2.png", 2)
    assert "at least two classes" in load(progress=lambda done, total: seen.append((done, total))).warnings[0]
    assert seen[-1] == (2, 2)
    put(photos / "pear" / "3.png", 3)
    assert "pear" in load().warnings[0]
    put(photos / "pear" / "4.png", 4)
    assert load().warnings == ()


def test_an_import_is_audited(shop: Shop, photos: Path, load: Load) -> None:
    put(photos / "apple" / "1.png", 1)
    load()
    with shop.workspace.database.read() as connection:
        record = connection.execute(sa.select(schema.audit).where(schema.audit.c.action == "data.import")).one()
    assert (record.actor, record.target, record.detail["added"]) == ("me", "shop", 1)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda folder: folder / "missing", NotFoundError, "nothing at"),
        (lambda folder: folder, DataError, "no pictures"),
        (lambda folder: put(folder / "1.png").parent, DataError, "no class folder"),
        (lambda folder: put(folder / "1.png"), BadInputError, "single file"),
    ],
)
def test_what_cannot_be_imported(
    photos: Path, load: Load, make: Callable[[Path], Path], error: type[KeepsightError], says: str
) -> None:
    with pytest.raises(error, match=says):
        load(make(photos))


def test_unknown_splits_and_projects_are_told(shop: Shop, photos: Path, load: Load) -> None:
    put(photos / "apple" / "1.png", 1)
    with pytest.raises(BadInputError, match="recent"):
        load(split="recent")
    with pytest.raises(NotFoundError):
        importers.import_path(shop.workspace, "shp", photos, author="me")


# --- tables ---------------------------------------------------------------------------------------------------------


def table(photos: Path, text: str, name: str = "list.csv", encoding: str = "utf-8") -> Path:
    path = photos / name
    path.write_bytes(text.encode(encoding))
    return path


def test_a_table_with_everything(shop: Shop, photos: Path, load: Load) -> None:
    for seed in range(4):
        put(photos / "pictures" / f"{seed}.png", seed)
    text = (
        "path,label,split,group,shelf,empty\n"
        "pictures/0.png,apple,train,g1,3,\n"
        'pictures/1.png,"pear, green",TEST,,4,\n'
        "\n"
        "pictures/2.png,,,,,\n"
        "./pictures/3.png,apple,validation,g1\n"
    )
    report = load(table(photos, text))
    assert (report.kind, report.added, report.rejected) == ("table", 4, ())
    assert rows_of(shop) == {
        "pictures/0.png": ("apple", "train"),
        "pictures/1.png": ("pear, green", "test"),
        "pictures/2.png": ("", "pending"),
        "./pictures/3.png": ("apple", "val"),
    }
    by_name = {item.name: item for item in samples.current(shop.workspace, "shop")}
    assert (by_name["pictures/0.png"].group, by_name["pictures/0.png"].meta) == ("g1", {"shelf": "3"})
    assert by_name["pictures/1.png"].group is None


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("File;Class\n1.png;apple\n", "utf-8"),
        ("filename\tclass_name\tclass_id\r\n1.png\tapple\t7\r\n", "utf-8"),
        ("image,category\n1.png,apple\n", "utf-8-sig"),
        ("path,label\nsub\\..\\1.png,apple\n", "utf-8"),
    ],
)
def test_tables_as_programs_write_them(shop: Shop, photos: Path, load: Load, text: str, encoding: str) -> None:
    put(photos / "1.png", 1)
    (photos / "sub").mkdir()
    assert load(table(photos, text, encoding=encoding)).added == 1
    assert [label for label, _ in rows_of(shop).values()] == ["apple"]


def test_the_label_column_can_be_named(shop: Shop, photos: Path, load: Load) -> None:
    put(photos / "1.png", 1)
    listed = table(photos, "path,label,Coarse\n1.png,granny smith,apple\n")
    load(listed, label_column="coarse")
    (found,) = samples.current(shop.workspace, "shop")
    assert (found.value, found.meta) == ({"label": "apple"}, {"label": "granny smith"})
    with pytest.raises(NotFoundError, match="Coarse"):
        load(listed, label_column="corse")


def test_bad_lines_cost_themselves(shop: Shop, photos: Path, load: Load) -> None:
    put(photos / "1.png", 1)
    put(photos / "2.png", 2)
    put(photos / "3.png", 3)
    text = f"path,label,split\n1.png,apple,\nnone.png,apple,\n2.png,apple,dev\n,apple,\n.,apple,\n3.png,{'x' * 300},\n"
    report = load(table(photos, text))
    assert report.added == 1
    assert codes(report) == {
        "none.png": "file_missing",
        "2.png": "split_unknown",
        "line 5": "path_missing",
        ".": "file_unreadable",
        "3.png": "annotation_invalid",
    }


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        (b"", DataError, "empty"),
        (b"path,label\n", DataError, "no pictures"),
        (b"path,colour\n1.png,red\n", DataError, "no label column"),
        (b"a,label\n1.png,red\n", DataError, "no path column"),
        ("path,label\nä.png,x\n".encode("latin-1"), BadInputError, "UTF-8"),
        ("path,label\n".encode("utf-16"), BadInputError, "UTF-8"),
        (b'path,label\n"1.png,red\n', BadInputError, "CSV"),
    ],
)
def test_tables_that_cannot_be_read(
    photos: Path, load: Load, text: bytes, error: type[KeepsightError], says: str
) -> None:
    path = photos / "list.csv"
    path.write_bytes(text)
    with pytest.raises(error, match=says):
        load(path)


@pytest.mark.pictures
def test_grocery_store_as_it_is_published(shop: Shop, test_data: Path) -> None:
    source = importers.detect(test_data / "grocery-store", task="classification")
    assert len(source.entries) == 4201
    assert len({entry.label for entry in source.entries}) == 81
    listed = importers.detect(test_data / "grocery-store" / "test.csv", task="classification")
    assert len(listed.entries) == 1265
    assert listed.entries[0].label == "Golden-Delicious"
    assert dict(listed.entries[0].meta) == {"class_id": "0", "coarse_class_name": "Apple", "coarse_class_id": "0"}
