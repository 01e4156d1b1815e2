"""A model bundle, the only thing that is deployed: a folder or .zip with the network, its manifest and its references.

==========================  =======================================================================================
``bundle.json``             `BundleInfo` and, under ``files``, sha256 and size of every other file
``model.onnx``              input ``image`` float32 (n, 3, size, size); outputs ``features`` float32 (n, d) and what the
                            task needs (classification: ``logits`` (n, k), before calibration)
``model.int8.onnx``         optional, the same contract, quantised per channel
``reference.<variant>.npz``  optional, arrays of held-out pictures that drift is measured against ("float", "int8")
``part.<name>``             optional, what the task needs besides: a second network, a gallery, the characters it reads
==========================  =======================================================================================

A bundle is read into memory whole and checked against its manifest; nothing is ever unpacked to disk. Its digest covers
the manifest, and so every file, but not the packing: the folder and the .zip of one bundle have the same digest.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import BundleError, ConflictError, NotFoundError, StorageError
from keepsight.runtime import manifest as manifests
from keepsight.runtime.manifest import BundleInfo

MANIFEST = "bundle.json"
_MODELS = {"float": "model.onnx", "int8": "model.int8.onnx"}
_FILE_NAME = re.compile(r"model(\.int8)?\.onnx|reference\.[a-z0-9_]+\.npz|part\.[a-z0-9_]+\.(onnx|npz|json|txt)")
_PART = "part."
# No single file may be larger: protobuf, and so ONNX without external data, ends here.
_MOST_BYTES = 2 * 1024**3
_ZIP_DAMAGE = (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, OSError, RuntimeError, ValueError)
_TAKE_AGAIN = "Copy the bundle again from where it was made, or make it anew with `keepsight train`."


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A model with all that is needed to run it and to say where it came from.

    Attributes:
        info: The manifest, typed.
        manifest: The manifest as stored, including the sha256 of the files.
        files: The content of every file but the manifest, by name.
    """

    info: BundleInfo
    manifest: Mapping[str, Any] = field(repr=False)
    files: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def create(
        cls,
        info: BundleInfo,
        *,
        model: bytes,
        int8_model: bytes | None = None,
        references: Mapping[str, Mapping[str, NDArray[Any]]] | None = None,
        parts: Mapping[str, bytes] | None = None,
    ) -> Bundle:
        """A new bundle from its parts.

        Args:
            info: What the manifest says.
            model: The ONNX network.
            int8_model: The same network quantised.
            references: By variant ("float", "int8") the named arrays that drift is measured against.
            parts: What the task needs besides, by names such as ``gallery.npz`` (.onnx, .npz, .json or .txt).
        """
        files = {_MODELS["float"]: model}
        if int8_model is not None:
            files[_MODELS["int8"]] = int8_model
        for variant, arrays in (references or {}).items():
            files[f"reference.{variant}.npz"] = write_arrays(arrays)
        files |= {_PART + name: content for name, content in (parts or {}).items()}
        for name in files:
            _check_name(name)
        sums = {name: {"sha256": _digest(files[name]), "size_bytes": len(files[name])} for name in sorted(files)}
        try:
            text = manifests.canonical({**info.as_dict(), "files": sums})
        except (TypeError, ValueError) as error:
            raise BundleError(
                f"The manifest cannot be written as JSON ({error}).",
                expected="text, finite numbers, lists and objects in metrics and extra.",
                do="Convert the named value before the bundle is made.",
            ) from error
        # Through JSON and back, so that a new bundle equals the one that is read later.
        return cls._checked(manifests.parse(text), files)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """The checked bundle in a folder or a .zip file.

        Raises:
            BundleError: Missing, incomplete, damaged, or of a format that this version does not know.
        """
        place = Path(path)
        try:
            if not place.is_dir():
                return cls.from_bytes(place.read_bytes())
            manifest = manifests.parse((place / MANIFEST).read_bytes())
            files = {name: (place / name).read_bytes() for name in _listed(manifest)}
        except FileNotFoundError as error:
            missing = Path(str(error.filename))
            what = f"There is no {place}." if missing == place else f"The bundle {place} has no file {missing.name}."
            raise BundleError(
                what, expected=f"a folder or .zip with {MANIFEST} and model.onnx.", do="Check the path. " + _TAKE_AGAIN
            ) from error
        except OSError as error:
            raise BundleError(
                f"The bundle {place} cannot be read ({error.strerror}).",
                expected="a folder or .zip that this program may read.",
                do="Check the path and its permissions.",
            ) from error
        return cls._checked(manifest, files)

    @classmethod
    def from_bytes(cls, data: bytes) -> Bundle:
        """The checked bundle in the bytes of a .zip file.

        Raises:
            BundleError: As `open`; also where the archive holds names that point outside of it.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = _members(archive)
                if MANIFEST not in members:
                    raise _missing(MANIFEST)
                manifest = manifests.parse(_read_member(archive, members[MANIFEST]))
                files = {}
                for name in _listed(manifest):
                    if name not in members:
                        raise _missing(name)
                    files[name] = _read_member(archive, members[name])
        except _ZIP_DAMAGE as error:
            raise BundleError(
                f"The file is no readable .zip archive ({error}).", expected="a model bundle.", do=_TAKE_AGAIN
            ) from error
        return cls._checked(manifest, files)

    @classmethod
    def _checked(cls, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> Bundle:
        info = BundleInfo.from_dict({key: value for key, value in manifest.items() if key != "files"})
        bundle = cls(info=info, manifest=manifest, files=files)
        bundle.verify()
        return bundle

    @property
    def digest(self) -> str:
        """Sha256 (hex) over the manifest in canonical JSON; names this very bundle, however it is packed."""
        return _digest(manifests.canonical(self.manifest))

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants of the network it holds: "float", and perhaps "int8"."""
        return tuple(variant for variant, name in _MODELS.items() if name in self.files)

    def serving_variant(self, wanted: str) -> str:
        """The variant that answers where ``wanted`` is asked for: that one, or "float" where the bundle lacks it."""
        return wanted if wanted in self.variants else "float"

    def model(self, variant: str = "float") -> bytes:
        """The ONNX network of one variant.

        Raises:
            NotFoundError: The bundle has no such variant.
        """
        if variant not in self.variants:
            raise NotFoundError.among("model variant", variant, self.variants)
        return self.files[_MODELS[variant]]

    def reference(self, variant: str = "float") -> dict[str, NDArray[Any]] | None:
        """The arrays that drift of this variant is measured against, or None where the bundle holds none."""
        content = self.files.get(f"reference.{variant}.npz")
        if content is None:
            return None
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except _ZIP_DAMAGE as error:
            raise _damaged(f"reference.{variant}.npz", f"it holds no arrays ({error})") from error

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parts that the task has besides the network."""
        return tuple(sorted(name.removeprefix(_PART) for name in self.files if name.startswith(_PART)))

    def part(self, name: str) -> bytes:
        """The content of a part.

        Raises:
            NotFoundError: The bundle has no such part.
        """
        if name not in self.parts:
            raise NotFoundError.among("part of the bundle", name, self.parts)
        return self.files[_PART + name]

    def verify(self) -> None:
        """Checks every file against the manifest.

        Raises:
            BundleError: A file is missing or not what the manifest says.
        """
        for name, entry in _listed(self.manifest).items():
            if name not in self.files:
                raise _missing(name)
            if _digest(self.files[name]) != entry:
                raise _damaged(name, "its content does not match the sha256 in the manifest")

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes the bundle as a folder, which appears complete or not at all, and returns its path.

        Raises:
            ConflictError: The folder exists and holds something else.
            StorageError: It cannot be written.
        """
        target = Path(folder)
        if target.exists():
            if (target / MANIFEST).is_file() and Bundle.open(target).digest == self.digest:
                return target
            raise ConflictError(
                f"{target} exists and is not this bundle.",
                expected="a path where nothing stands yet.",
                do="Choose another path, or remove the old one first.",
            )
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
            try:
                for name, content in self._contents().items():
                    (draft / name).write_bytes(content)
                draft.chmod(0o755)
                draft.rename(target)
            except OSError:
                shutil.rmtree(draft, ignore_errors=True)
                raise
        except OSError as error:
            raise _unwritable(target, error) from error
        return target

    def to_zip(self, path: str | os.PathLike[str]) -> Path:
        """Writes the bundle as a .zip file, replacing an older one in one move, and returns its path.

        Raises:
            StorageError: It cannot be written.
        """
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(self.zip_bytes())
                Path(draft).chmod(0o644)
                Path(draft).replace(target)
            except OSError:
                Path(draft).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise _unwritable(target, error) from error
        return target

    def zip_bytes(self) -> bytes:
        """The bundle as a .zip; the same bundle gives the same bytes."""
        return _write_zip(self._contents())

    def _contents(self) -> dict[str, bytes]:
        text = json.dumps(self.manifest, indent=2, ensure_ascii=False, allow_nan=False)
        return {MANIFEST: (text + "\n").encode(), **{name: self.files[name] for name in _listed(self.manifest)}}


def _listed(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The sha256 of every file that the manifest lists, by name; names that no bundle has are refused."""
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(
        isinstance(entry, dict) and isinstance(entry.get("sha256"), str) for entry in files.values()
    ):
        raise BundleError(
            f'{MANIFEST} does not list the files of the bundle under "files".',
            expected="the sha256 of every file by its name.",
            do=_TAKE_AGAIN,
        )
    for name in files:
        _check_name(name)
    if _MODELS["float"] not in files:
        raise _missing(_MODELS["float"])
    return {name: entry["sha256"] for name, entry in files.items()}


def _check_name(name: str) -> None:
    if not _FILE_NAME.fullmatch(name):
        raise BundleError(
            f'The bundle lists a file "{name}".',
            expected="model.onnx, model.int8.onnx, reference.<variant>.npz and part.<name> only.",
            do="Do not use this bundle unless you know who made it. " + _TAKE_AGAIN,
            name=name,
        )


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename
        parts = re.split(r"[/\\]", name)
        if ".." in parts or parts[0] == "" or ":" in name or name in members:
            raise BundleError(
                f'The archive holds an unsafe name "{name}".',
                expected="plain names inside the archive, each of them once.",
                do="Do not use this bundle unless you know who made it. " + _TAKE_AGAIN,
                name=name,
            )
        members[name] = member
    return members


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The content of a member; never more than it declares, and a declaration beyond the limit is refused unread."""
    if member.file_size > _MOST_BYTES:
        raise BundleError(
            f"{member.filename} has {member.file_size:,} bytes.",
            expected=f"at most {_MOST_BYTES:,} bytes.",
            do=_TAKE_AGAIN,
        )
    try:
        return archive.read(member)
    except _ZIP_DAMAGE as error:
        raise _damaged(member.filename, str(error)) from error


def _write_zip(contents: Mapping[str, bytes]) -> bytes:
    """A .zip with fixed times and rights. Stored, not deflated: weights hardly shrink, and zlib versions differ."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression=zipfile.ZIP_STORED) as archive:
        for name in sorted(contents):
            member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            member.create_system = 3
            member.external_attr = 0o644 << 16
            archive.writestr(member, contents[name])
    return out.getvalue()


def write_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes of an .npz; `numpy.savez` would write the time of day into it."""
    contents = {}
    for name, array in arrays.items():
        out = io.BytesIO()
        np.lib.format.write_array(out, np.asarray(array, order="C"), allow_pickle=False)
        contents[f"{name}.npy"] = out.getvalue()
    return _write_zip(contents)


def _missing(name: str) -> BundleError:
    return BundleError(
        f"The bundle has no file {name}.", expected=f"{name} at its top level.", do=_TAKE_AGAIN, name=name
    )


def _damaged(name: str, how: str) -> BundleError:
    return BundleError(
        f"{name} of the bundle is damaged: {how}.", expected="the file as it was written.", do=_TAKE_AGAIN, name=name
    )


def _unwritable(target: Path, error: OSError) -> StorageError:
    return StorageError(
        f"The bundle cannot be written to {target} ({error.strerror}).",
        expected="a folder with enough room that this program may write to.",
        do="Free some space or choose another place.",
        path=str(target),
    )
