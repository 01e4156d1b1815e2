"""Any network of timm as a backbone: its weights from the hub or from a file, its graph kept in the zoo's cache.

Making the graph needs the extra [train]; what is in the cache is loaded without it. The cache's folder ``timm`` holds,
for each set of weights by its sha256, the ONNX graph and a record of what it is; and, for weights that were fetched,
the weights themselves and a file ``names/NAME.json`` that says which of them ``timm/NAME`` means from then on. So a hub
that changes its files, or cannot be reached any more, changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from keepsight.errors import BadInputError, NotFoundError, StorageError, WeightsError
from keepsight.runtime.preprocess import Preprocessing
from keepsight.zoo import fetch, licences, timm_stages
from keepsight.zoo.torch_networks import TIMM_PREFIX, TorchNetwork, import_timm

_log = logging.getLogger(__name__)

_NAME = re.compile(r"\w+(\.[\w-]+)?", re.ASCII)
_SAFETENSORS = ".safetensors"
_HUB_TIMEOUT_S = 10
# What reading a file of another format ends with, in torch and safetensors.
_BROKEN = (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError)
# Where checkpoints of training programs keep the tensors; averaged ones are what was meant to be used.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")


@dataclass(frozen=True)
class TimmBackbone:
    """A timm network as a graph; ``weights`` is the file that it was made from."""

    name: str
    onnx: bytes = field(repr=False)
    digest: str
    preprocessing: Preprocessing
    features_dim: int
    licences: tuple[str, ...]
    weights: Path


@dataclass(frozen=True)
class Fetched:
    """Weights that ``timm/NAME`` means on this machine: in which file, with which sha256, under which licence."""

    name: str
    path: Path
    sha256: str
    size_bytes: int
    licence: str
    origin: str

    def as_dict(self) -> dict[str, Any]:
        """The facts as JSON takes them, without the folder."""
        facts = {name: getattr(self, name) for name in ("name", "sha256", "size_bytes", "licence", "origin")}
        return {**facts, "file": self.path.name}


def load(
    name: str, *, cache: Path | None = None, weights: Path | None = None, allowed_licences: Iterable[str] = ()
) -> TimmBackbone:
    """The timm network as a backbone: from the cache, else made from ``weights``, else fetched from the hub.

    Args:
        name: ``timm/NAME``, such as ``timm/resnet18.a1_in1k``.
        cache: The zoo's folder; ``fetch.default_cache()`` when not given.
        weights: A file with the network's weights (safetensors, or a torch file that holds tensors only).
        allowed_licences: Restricted licences (see ``keepsight.zoo.licences``) that the user takes nevertheless.

    Raises:
        NotFoundError: timm has no such network.
        MissingExtraError: torch or timm is not installed, and the cache does not have the network.
        WeightsError: The weights cannot be had, are those of another network, or their licence is restricted.
    """
    folder = cache or fetch.default_cache()
    plain = _plain(name)
    content = None if weights is None else _read(weights)
    if weights is None or content is None:
        found = _fetched(plain, folder) or _from_hub(plain, folder, allowed_licences)
        path, sha256 = found.path, found.sha256
    else:
        path, sha256 = weights, hashlib.sha256(content).hexdigest()
    made = _kept(plain, sha256, folder, path)
    if made is None:
        content = _genuine(path, sha256, plain) if content is None else content
        licences.check(name, _licence(plain), allowed=allowed_licences)
        made = _make(plain, content, path, sha256, folder)
    licences.check(name, made.licences[0], allowed=allowed_licences)
    return made


def fetch_weights(
    name: str, *, cache: Path | None = None, source: Path | None = None, allowed_licences: Iterable[str] = ()
) -> Fetched:
    """Puts the network's weights into the cache, from a file or the hub, and makes its graph.

    From then on ``timm/NAME`` means these weights on this machine, where no other file is named.

    Raises:
        StorageError: The cache folder cannot be written. And as for ``load``.
    """
    folder = cache or fetch.default_cache()
    plain = _plain(name)
    if source is None:
        found = _fetched(plain, folder) or _from_hub(plain, folder, allowed_licences)
    else:
        content = _read(source)
        licences.check(name, _licence(plain), allowed=allowed_licences)
        # Before it is kept: a file that does not fit must not take the place of one that does.
        _network(plain, content, path=source)
        found = _keep(plain, content, folder, suffix=source.suffix, origin=source.name)
    load(name, cache=folder, allowed_licences=allowed_licences)
    return found


def network(name: str, *, cache: Path | None = None, weights: Path | None = None) -> TorchNetwork:
    """The timm network in stages, with the weights that ``load`` would take.

    The licence is not looked at here: ``load`` did, when the backbone was chosen.

    Raises:
        As for ``load``.
    """
    plain = _plain(name)
    import_timm()
    if weights is not None:
        return _network(plain, _read(weights), path=weights)
    folder = cache or fetch.default_cache()
    found = _fetched(plain, folder) or _from_hub(plain, folder, ())
    return _network(plain, _genuine(found.path, found.sha256, plain), path=found.path)


def here(*, cache: Path | None = None) -> list[Fetched]:
    """The networks whose weights were fetched to this machine, by name."""
    folder = cache or fetch.default_cache()
    names = sorted(path.stem for path in _pointer("*", folder).parent.glob("*.json") if _NAME.fullmatch(path.stem))
    found = [_fetched(name, folder) for name in names]
    return [item for item in found if item is not None]


def _plain(name: str) -> str:
    plain = name.removeprefix(TIMM_PREFIX)
    if not _NAME.fullmatch(plain):
        raise BadInputError(
            f'"{name}" is not the name of a timm network.',
            expected=f"{TIMM_PREFIX}NAME with letters, digits, _ and -, and a tag behind a dot where there is one.",
            do="Write it as timm does, such as timm/resnet18.a1_in1k.",
        )
    return plain


def _configuration(plain: str) -> Any:
    """What timm knows about the weights of that name, without making the network."""
    timm = import_timm()
    architecture, _, tag = plain.partition(".")
    if not timm.is_model(architecture):
        raise NotFoundError.among("timm network", plain, timm.list_models())
    tags = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and plain not in tags:
        raise NotFoundError.among(f"set of weights of timm's {architecture}", plain, tags)
    return timm.get_pretrained_cfg(plain)


def _licence(plain: str) -> str:
    found = _configuration(plain)
    return licences.spdx(None if found is None else found.license)


def _pointer(plain: str, cache: Path) -> Path:
    """The file that says which weights the name means."""
    return cache / "timm" / "names" / f"{plain}.json"


def _fetched(plain: str, cache: Path) -> Fetched | None:
    """What ``timm/NAME`` was decided to mean on this machine, if it was."""
    pointer = _pointer(plain, cache)
    try:
        facts = json.loads(pointer.read_text("utf-8"))
        # Only its name: no file of this kind leads out of the cache.
        path = cache / "timm" / Path(str(facts["file"])).name
        found = Fetched(
            name=f"{TIMM_PREFIX}{plain}",
            path=path,
            sha256=str(facts["sha256"]),
            size_bytes=int(facts["size_bytes"]),
            licence=str(facts["licence"]),
            origin=str(facts["origin"]),
        )
    except OSError:
        return None
    except (ValueError, KeyError, TypeError):
        _log.warning("The cache's record %s is damaged; the weights are fetched again.", pointer)
        return None
    return found if path.is_file() else None


def _from_hub(plain: str, cache: Path, allowed_licences: Iterable[str]) -> Fetched:
    """Downloads the weights through timm, and keeps them."""
    configuration = _configuration(plain)
    licences.check(f"{TIMM_PREFIX}{plain}", _licence(plain), allowed=allowed_licences)
    if configuration is None or not configuration.has_weights:
        _unreachable(plain, "timm knows no pretrained weights for it")
    import huggingface_hub
    from safetensors.torch import save

    timm = import_timm()
    repository = configuration.hf_hub_id
    try:
        if repository and not isinstance(
            huggingface_hub.try_to_load_from_cache(repository, f"model{_SAFETENSORS}"), str
        ):
            # A question with one answer: the download itself would ask an absent hub twelve times, for a minute.
            huggingface_hub.HfApi().model_info(repository, timeout=_HUB_TIMEOUT_S)
        model = timm.create_model(plain, pretrained=True)
    except _network_errors() as error:
        _unreachable(plain, f"the hub cannot be reached or does not have them ({error})", error)
    tensors = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    return _keep(plain, save(tensors), cache, suffix=_SAFETENSORS, origin=repository or str(configuration.url))


def _network_errors() -> tuple[type[Exception], ...]:
    """What a download can end with; the hub's client raises the errors of its own HTTP library."""
    import importlib

    from huggingface_hub.errors import HfHubHTTPError

    found: list[type[Exception]] = [OSError, RuntimeError, ValueError, HfHubHTTPError]
    for library in ("httpx2", "httpx"):
        try:
            found.append(importlib.import_module(library).HTTPError)
        except ModuleNotFoundError:
            continue
    return tuple(found)


def _unreachable(plain: str, reason: str, cause: Exception | None = None) -> NoReturn:
    name = f"{TIMM_PREFIX}{plain}"
    raise WeightsError(
        f"The weights of {name} are not on this machine: {reason}.",
        expected="a way to the hub, or a file with the weights.",
        do=f"Run `keepsight zoo fetch {name} --weights FILE` with a .safetensors or .pth file of this network, or name "
        "the file in train.weights.",
        name=name,
    ) from cause


def _keep(plain: str, content: bytes, cache: Path, *, suffix: str, origin: str) -> Fetched:
    sha256 = hashlib.sha256(content).hexdigest()
    found = Fetched(
        name=f"{TIMM_PREFIX}{plain}",
        path=cache / "timm" / f"{plain}-{sha256[:16]}{suffix}",
        sha256=sha256,
        size_bytes=len(content),
        licence=_licence(plain),
        origin=origin,
    )
    fetch.write_atomically(found.path, content)
    fetch.write_atomically(_pointer(plain, cache), json.dumps(found.as_dict(), indent=1).encode())
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"The weights file {path.name} cannot be read: {error.strerror}.",
            expected="a readable .safetensors or .pth file.",
            do="Check the path (train.weights begins at the workspace) and its permissions.",
            path=str(path),
        ) from error


def _genuine(path: Path, sha256: str, plain: str) -> bytes:
    content = _read(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise WeightsError(
            f"The weights file {path.name} in the cache is not what was fetched: its sha256 is another.",
            expected=f"sha256 {sha256}.",
            do=f"Delete {path} and run `keepsight zoo fetch {TIMM_PREFIX}{plain}`.",
            path=str(path),
        )
    return content


def _record_path(plain: str, sha256: str, cache: Path) -> Path:
    return cache / "timm" / f"{plain}-{sha256[:16]}-g{timm_stages.GRAPH_VERSION}.json"


def _kept(plain: str, sha256: str, cache: Path, weights: Path) -> TimmBackbone | None:
    """The graph of these weights from the cache, where it is whole."""
    path = _record_path(plain, sha256, cache)
    try:
        record = json.loads(path.read_text("utf-8"))
        model = path.with_suffix(".onnx").read_bytes()
        if record["weights_sha256"] != sha256 or hashlib.sha256(model).hexdigest() != record["onnx_sha256"]:
            raise ValueError("its digest is another")
        return TimmBackbone(
            name=f"{TIMM_PREFIX}{plain}",
            onnx=model,
            digest=record["onnx_sha256"],
            preprocessing=Preprocessing.from_dict(record["preprocessing"]),
            features_dim=int(record["features_dim"]),
            licences=tuple(record["licences"]),
            weights=weights,
        )
    except OSError:
        return None
    except (ValueError, KeyError, TypeError, BadInputError) as error:
        _log.warning("The cached graph %s is damaged (%s); it is made again from the weights.", path, error)
        return None


def _make(plain: str, content: bytes, path: Path, sha256: str, cache: Path) -> TimmBackbone:
    made = _network(plain, content, path=path)
    model = timm_stages.export([*(stage for _, stage in made.stages), made.pool], size=made.preprocessing.size)
    backbone = TimmBackbone(
        name=made.name,
        onnx=model,
        digest=hashlib.sha256(model).hexdigest(),
        preprocessing=made.preprocessing,
        features_dim=made.features_dim,
        licences=made.licences,
        weights=path,
    )
    record = {
        "weights_sha256": sha256,
        "onnx_sha256": backbone.digest,
        "preprocessing": backbone.preprocessing.as_dict(),
        "features_dim": backbone.features_dim,
        "licences": list(backbone.licences),
    }
    place = _record_path(plain, sha256, cache)
    try:
        fetch.write_atomically(place.with_suffix(".onnx"), model)
        fetch.write_atomically(place, json.dumps(record, indent=1).encode())
    except StorageError as error:
        # The graph itself is fine; only the next start is slower.
        _log.warning("The graph of %s is not kept for the next start. %s", backbone.name, error)
    return backbone


def _network(plain: str, content: bytes, *, path: Path) -> TorchNetwork:
    """The network of that name with exactly these weights; none of its own random ones is left."""
    timm = import_timm()
    _configuration(plain)
    model = timm.create_model(plain, pretrained=False, exportable=True)
    configuration: Mapping[str, Any] = model.pretrained_cfg
    _, height, width = configuration["input_size"]
    if height != width:
        raise WeightsError(
            f"{TIMM_PREFIX}{plain} takes pictures of {width} x {height} pixels.",
            expected="a network for square pictures.",
            do="Choose another network.",
        )
    _fill(model, _tensors(content, path), configuration, path=path, plain=plain)
    model.reset_classifier(0)
    stages, pool, features_dim = timm_stages.split(model, size=height)
    return TorchNetwork(
        name=f"{TIMM_PREFIX}{plain}",
        stages=stages,
        pool=pool.eval(),
        features_dim=features_dim,
        preprocessing=Preprocessing(
            size=height,
            mean=tuple(round(value * 255, 6) for value in configuration["mean"]),
            std=tuple(round(value * 255, 6) for value in configuration["std"]),
            crop=float(configuration["crop_pct"]),
            interpolation=configuration["interpolation"],
        ),
        licences=(licences.spdx(configuration.get("license")),),
    )


def _tensors(content: bytes, path: Path) -> dict[str, Any]:
    """The state dict in a file; nothing in the file is executed."""
    import io

    import torch

    try:
        if path.suffix == _SAFETENSORS:
            from safetensors import SafetensorError
            from safetensors.torch import load as load_safetensors

            try:
                return dict(load_safetensors(content))
            except SafetensorError as error:
                raise ValueError(str(error)) from error
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        for key in _WRAPPERS:
            if isinstance(found, dict) and isinstance(found.get(key), dict):
                found = found[key]
        return {str(name).removeprefix("module."): value for name, value in found.items()}
    except _BROKEN as error:
        raise WeightsError(
            f"{path.name} is not a file of weights: {str(error).partition(chr(10))[0]}",
            expected="a .safetensors file, or a torch file that holds a state dict of tensors and nothing to execute.",
            do="Save the weights with safetensors, or with torch.save(model.state_dict(), FILE).",
            path=str(path),
        ) from error


def _fill(model: Any, tensors: dict[str, Any], configuration: Mapping[str, Any], *, path: Path, plain: str) -> None:
    """Loads the tensors into the network; all but its classifier must be there, and nothing else may be."""
    named = configuration.get("classifier") or ()
    classifiers = tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}

    def differences(given: Mapping[str, Any]) -> list[str]:
        shapes = {name: tuple(getattr(value, "shape", ())) for name, value in given.items()}
        counters = {name for name in own if name.endswith(".num_batches_tracked")}
        names = {name for name in {*own, *shapes} - (counters - set(shapes)) if not name.startswith(classifiers)}
        return sorted(name for name in names if own.get(name) != shapes.get(name))

    wrong = differences(tensors)
    if wrong:
        # Published under other names: timm has the translation beside the network.
        import sys

        translate: Callable[..., Any] | None = getattr(
            sys.modules[type(model).__module__], "checkpoint_filter_fn", None
        )
        try:
            translated = dict(translate(dict(tensors), model)) if translate is not None else tensors
        except _BROKEN:
            translated = tensors
        if not differences(translated):
            wrong, tensors = [], translated
    if wrong:
        name = f"{TIMM_PREFIX}{plain}"
        raise WeightsError(
            f"The weights in {path.name} are not those of {name}: {len(wrong)} tensors are missing, too many or of "
            f"another shape, such as {wrong[0]}.",
            expected=f"the {len(own)} tensors of timm's {plain}; those of the classifier may be missing.",
            do="Use the file that belongs to this network, or name the network that the file belongs to.",
            name=name,
            tensors=wrong[:20],
        )
    model.load_state_dict(
        {name: value for name, value in tensors.items() if not name.startswith(classifiers)}, strict=False
    )
