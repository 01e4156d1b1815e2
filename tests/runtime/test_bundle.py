"""Bundles survive packing, say what is wrong with them, and stay readable by later versions."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keepsight.errors import BundleError, ConflictError, NotFoundError, StorageError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.preprocess import Preprocessing
from keepsight.runtime.quality import QualityLimits

Make = Callable[..., Any]
FIXTURE = Path(__file__).parent / "fixtures" / "bundle-v1.zip"


def zipped(contents: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return out.getvalue()


def unzipped(bundle: Bundle) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(bundle.zip_bytes())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_manifest(bundle: Bundle, **changes: Any) -> bytes:
    contents = unzipped(bundle)
    manifest = {**json.loads(contents["bundle.json"]), **changes}
    return zipped({**contents, "bundle.json": json.dumps(manifest).encode()})


class TestPacking:
    def test_folder_and_zip_hold_the_same_bundle(self, bundle: Bundle, tmp_path: Path) -> None:
        folder = bundle.save(tmp_path / "models" / "first")
        archive = bundle.to_zip(tmp_path / "first.zip")
        for copy in (Bundle.open(folder), Bundle.open(archive), Bundle.from_bytes(bundle.zip_bytes())):
            assert copy == bundle
            assert copy.digest == bundle.digest
            assert copy.info == bundle.info
        assert sorted(path.name for path in tmp_path.rglob("*")) == [
            "bundle.json", "first", "first.zip", "model.int8.onnx", "model.onnx", "models", "reference.float.npz"
        ]  # fmt: skip

    def test_zips_are_reproducible(self, make_bundle: Make) -> None:
        assert make_bundle().zip_bytes() == make_bundle().zip_bytes()

    def test_digest_does_not_depend_on_the_packing(self, bundle: Bundle) -> None:
        assert Bundle.from_bytes(zipped(unzipped(bundle))).digest == bundle.digest

    def test_digest_depends_on_every_part(self, make_model: Make, make_info: Make) -> None:
        digests = {
            Bundle.create(make_info(), model=make_model()).digest,
            Bundle.create(make_info(), model=make_model(scale=5)).digest,
            Bundle.create(make_info(temperature=2.0), model=make_model()).digest,
            Bundle.create(make_info(), model=make_model(), int8_model=make_model()).digest,
            Bundle.create(make_info(), model=make_model(), references={"float": {"a": np.zeros(2)}}).digest,
        }
        assert len(digests) == 5

    def test_saving_again_is_harmless_but_another_bundle_is_not_overwritten(
        self, bundle: Bundle, make_bundle: Make, tmp_path: Path
    ) -> None:
        bundle.save(tmp_path / "model")
        bundle.save(tmp_path / "model")
        with pytest.raises(ConflictError, match="is not this bundle"):
            make_bundle(run_id="run-8").save(tmp_path / "model")
        assert Bundle.open(tmp_path / "model") == bundle

    def test_unwritable_place(self, bundle: Bundle, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(StorageError, match="cannot be written"):
            bundle.save(tmp_path / "file" / "model")
        with pytest.raises(StorageError, match="cannot be written"):
            bundle.to_zip(tmp_path / "file" / "model.zip")

    def test_unlisted_files_are_never_read(self, bundle: Bundle, tmp_path: Path) -> None:
        folder = bundle.save(tmp_path / "model")
        (folder / ".DS_Store").write_bytes(b"x")
        assert Bundle.open(folder) == bundle
        assert Bundle.from_bytes(zipped({**unzipped(bundle), "notes.txt": b"hello"})) == bundle


class TestParts:
    def test_variants(self, bundle: Bundle, make_model: Make, make_info: Make) -> None:
        assert bundle.variants == ("float", "int8")
        assert bundle.model() == make_model()
        assert bundle.model("int8") == make_model(scale=3.0)
        plain = Bundle.create(make_info(), model=make_model())
        with pytest.raises(NotFoundError, match="one of: float"):
            plain.model("int8")

    def test_reference(self, bundle: Bundle) -> None:
        reference = bundle.reference("float")
        assert reference is not None
        np.testing.assert_array_equal(reference["features"], np.arange(12, dtype=np.float32).reshape(4, 3))
        assert bundle.reference("int8") is None

    def test_single_numbers_of_a_reference_stay_single_numbers(self, make_model: Make, make_info: Make) -> None:
        made = Bundle.create(make_info(), model=make_model(), references={"float": {"format": np.array(1)}})
        reference = made.reference("float")
        assert reference is not None and int(reference["format"]) == 1

    def test_reference_with_pickled_objects_is_refused(self, make_model: Make, make_info: Make) -> None:
        with pytest.raises(ValueError, match="Object arrays"):
            Bundle.create(make_info(), model=make_model(), references={"float": {"a": np.array([{}], dtype=object)}})

    def test_manifest_is_typed(self, bundle: Bundle) -> None:
        info = Bundle.from_bytes(bundle.zip_bytes()).info
        assert info.labels == ("red", "green", "blue")
        assert info.preprocessing == Preprocessing(16)
        assert info.auto_threshold == 0.9
        assert info.quality_limits == QualityLimits()
        assert info.backbone is not None
        assert info.backbone.licence == "Apache-2.0"
        assert info.extra["note"] == "Größe ≥ 1"

    @pytest.mark.parametrize(
        "changes",
        [
            {"labels": ("a", "a")},
            {"labels": ("a", "")},
            {"temperature": 0.0},
            {"temperature": float("inf")},
            {"thresholds": {"auto": -0.5}},
            {"created_at": "yesterday"},
            {"created_at": "2026-11-23T08:00:00"},
            {"task": ""},
        ],
    )
    def test_impossible_entries_are_refused(self, changes: dict[str, Any], make_info: Make) -> None:
        with pytest.raises(BundleError) as caught:
            make_info(**changes)
        assert next(iter(changes)) in caught.value.found

    def test_metrics_that_are_no_json_are_refused(self, make_model: Make, make_info: Make) -> None:
        for value in (float("nan"), np.float32(1), object()):
            with pytest.raises(BundleError, match="JSON"):
                Bundle.create(make_info(metrics={"accuracy": value}), model=make_model())


class TestDamage:
    def test_newer_format_says_upgrade(self, bundle: Bundle) -> None:
        with pytest.raises(BundleError, match="format version 2") as caught:
            Bundle.from_bytes(with_manifest(bundle, format_version=2, something_new={"a": 1}))
        assert "Upgrade Keepsight" in caught.value.do

    @pytest.mark.parametrize("version", [0, "1", None, True, 1.0])
    def test_odd_format_versions(self, version: Any, bundle: Bundle) -> None:
        with pytest.raises(BundleError, match="format_version"):
            Bundle.from_bytes(with_manifest(bundle, format_version=version))

    @pytest.mark.parametrize("name", ["bundle.json", "model.onnx", "reference.float.npz"])
    def test_missing_file_is_named(self, name: str, bundle: Bundle, tmp_path: Path) -> None:
        folder = bundle.save(tmp_path / "model")
        (folder / name).unlink()
        contents = unzipped(bundle)
        del contents[name]
        with pytest.raises(BundleError, match=f"no file {name}"):
            Bundle.open(folder)
        with pytest.raises(BundleError, match=f"no file {name}"):
            Bundle.from_bytes(zipped(contents))

    def test_no_such_path(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match=r"There is no .*model"):
            Bundle.open(tmp_path / "model")

    @pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx", "reference.float.npz"])
    def test_changed_file_is_named(self, name: str, bundle: Bundle, tmp_path: Path) -> None:
        folder = bundle.save(tmp_path / "model")
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
        with pytest.raises(BundleError, match=f"{name} of the bundle is damaged"):
            Bundle.open(folder)

    @pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
    def test_bad_json(self, text: bytes, bundle: Bundle) -> None:
        with pytest.raises(BundleError, match=r"bundle\.json"):
            Bundle.from_bytes(zipped({**unzipped(bundle), "bundle.json": text}))

    @pytest.mark.parametrize(
        "changes",
        [
            {"labels": "red"}, {"preprocessing": {}}, {"preprocessing": 3}, {"thresholds": {"auto": "high"}},
            {"temperature": "warm"}, {"backbone": {"name": "x"}}, {"files": []}, {"files": {}}, {"metrics": None},
            {"files": {"model.onnx": {}}}, {"surprise": 1}, {"quality_limits": {"min_fun": 1}},
        ],
    )  # fmt: skip
    def test_ill_typed_entries(self, changes: dict[str, Any], bundle: Bundle) -> None:
        with pytest.raises(BundleError):
            Bundle.from_bytes(with_manifest(bundle, **changes))

    def test_missing_entries_are_named(self, bundle: Bundle) -> None:
        values = dict(bundle.manifest)
        for name in ("files", "labels", "temperature"):
            del values[name]
        with pytest.raises(BundleError, match="lacks labels, temperature"):
            BundleInfo.from_dict(values)

    @pytest.mark.parametrize("name", ["../evil.txt", "/etc/passwd", "a/../../b", "..\\evil", "C:evil", "\\\\host\\x"])
    def test_zip_slip(self, name: str, bundle: Bundle) -> None:
        with pytest.raises(BundleError, match="unsafe name"):
            Bundle.from_bytes(zipped({**unzipped(bundle), name: b"x"}))

    @pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "sub/model.onnx", "evil.py"])
    def test_manifest_that_points_elsewhere(self, name: str, bundle: Bundle, tmp_path: Path) -> None:
        files = {**bundle.manifest["files"], name: {"sha256": "00" * 32, "size_bytes": 1}}
        data = with_manifest(bundle, files=files)
        with pytest.raises(BundleError, match="lists a file"):
            Bundle.from_bytes(data)
        folder = bundle.save(tmp_path / "model")
        (folder / "bundle.json").write_text(json.dumps({**bundle.manifest, "files": files}))
        with pytest.raises(BundleError, match="lists a file"):
            Bundle.open(folder)

    def test_zip_bomb_is_refused_unread(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("keepsight.runtime.bundle._MOST_BYTES", 10_000)
        with pytest.raises(BundleError, match="at most 10,000 bytes"):
            Bundle.from_bytes(zipped({**unzipped(bundle), "model.onnx": bytes(20_000)}))

    @pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 0.999])
    def test_cut_off_zip(self, share: float, bundle: Bundle) -> None:
        data = bundle.zip_bytes()
        with pytest.raises(BundleError):
            Bundle.from_bytes(data[: int(len(data) * share)])

    def test_flipped_bits_in_a_zip(self, bundle: Bundle) -> None:
        data = bundle.zip_bytes()
        random = np.random.default_rng(3)
        for _ in range(200):
            damaged = bytearray(data)
            damaged[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
            try:
                read = Bundle.from_bytes(bytes(damaged))
            except BundleError:
                continue
            assert read == bundle  # a bit that means nothing, in a time stamp


class TestOldBundles:
    def test_bundle_of_format_1_is_still_read(self) -> None:
        bundle = Bundle.open(FIXTURE)
        assert bundle.info.format_version == 1
        assert bundle.info.labels == ("red", "green", "blue")
        assert bundle.digest == "8f68e499793624639368e5762804b55069ba29c2b4751a19b4b9e2383533ac81"
        reference = bundle.reference()
        assert reference is not None
        assert sorted(reference) == ["features", "sample"]

    def test_its_digest_and_bytes_survive_a_copy(self, tmp_path: Path) -> None:
        bundle = Bundle.open(FIXTURE)
        assert Bundle.open(bundle.save(tmp_path / "copy")).zip_bytes() == FIXTURE.read_bytes()
