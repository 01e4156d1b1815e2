"""Fine-tunes the recogniser on corrected lines with CTC (Graves 2006), and keeps what it could read before.

The ONNX network becomes a torch one (onnx2torch) whose weights, constants among them, train at a small rate on the
lines' pictures and on rendered text. Lines of held-out documents choose between the old weights, the new ones and
mixtures of both (weight-space ensembles, Wortsman 2022); a mixture that reads rendered text of general kind worse than
the old weights is no choice, so that what is seldom in the own documents is not forgotten.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keepsight.errors import BudgetError, DataError, MissingExtraError, PictureError, TrainingError
from keepsight.runtime.outputs.ocr import recognition
from keepsight.runtime.session import INPUT, open_session
from keepsight.tasks.ocr.distance import edit_distance
from keepsight.training.documents import rendering
from keepsight.training.documents.reader import Reader, prepared, unknown_characters
from keepsight.training.recipes import Material

CHECKPOINT = "recogniser.npz"
_BATCH = 8
_RATE = 2e-4
_WARM_STEPS = 10
_CLIP = 5.0
_RENDERED_SHARE = 0.25
_HELD_SHARE = 0.2
_MOST_HELD_LINES = 240
_PASSES = 3
_MIXTURES = (0.0, 0.5, 0.75, 1.0)
# Rendered text of general kind may be read so much worse (characters wrong, share), and no more.
_FORGETTING = 0.01
_GENERAL_LINES = 60
_LEAST_S = 60.0
# Share of what is left of the budget that the steps may take; reading the documents again takes the rest.
_STEPS_SHARE = 0.5
_SAVE_EVERY = 100
# Longer lines (width over height) would take the memory of all others.
_LONGEST = 30


@dataclass(frozen=True)
class Tuned:
    """What fine-tuning gives.

    Attributes:
        reader: With the recogniser that was chosen, which may be the old one.
        held: bool (n,), the documents of the material that it has not learned from.
        plan: Resolved choices, JSON-able.
        figures: Character error rates on held-out lines and on rendered text, before and after.
    """

    reader: Reader
    held: NDArray[np.bool_]
    plan: dict[str, Any]
    figures: dict[str, Any]


@dataclass(frozen=True)
class _Line:
    image: Image.Image
    text: str


def finetune(material: Material, reader: Reader) -> Tuned:
    """The reader with its recogniser fine-tuned on the material's annotated lines.

    Raises:
        DataError: There is no line to learn from; names the characters that the recogniser does not know.
        MissingExtraError: torch or onnx2torch is not installed.
        BudgetError: The time that is left is too short.
    """
    torch = _torch()
    plan = dict(material.plan or {})
    timed = material.plan is None and math.isfinite(material.budget.total_s)
    if timed and material.budget.left_s < _LEAST_S:
        raise BudgetError(
            f"{material.budget.left_s:.0f} s are left for fine-tuning the recogniser.",
            expected=f"at least {_LEAST_S:.0f} s.",
            do="Raise train.budget_minutes, or train with the recipe `fields` or `pretrained`.",
        )
    held = _held(material)
    lines, held_lines, unknown = _lines(material, reader, held)
    random = np.random.default_rng(material.seed)
    general = [_Line(image, text) for image, text in rendering.general(_GENERAL_LINES, reader.characters, seed=7)]
    network = _network(reader.recogniser)
    old = {name: value.clone() for name, value in network.state_dict().items()}
    deadline = material.budget.left_s * (1 - _STEPS_SHARE) if timed else 0.0
    wanted = int(plan.get("steps", math.ceil(_PASSES * len(lines) / (_BATCH * (1 - _RENDERED_SHARE)))))
    threads = torch.get_num_threads()
    try:
        steps = _steps(material, network, lines, reader.characters, random=random, wanted=wanted, deadline=deadline)
    finally:
        torch.set_num_threads(threads)
    mixture, recogniser, figures = _chosen(
        material,
        network,
        old=old,
        reader=reader,
        held=held_lines,
        general=general,
        replayed=plan.get("mixture"),
    )
    return Tuned(
        reader=reader if recogniser is None else reader.with_recogniser(recogniser),
        held=held,
        plan={"steps": steps, "mixture": mixture, "lines": len(lines), "held_lines": len(held_lines)},
        figures={**figures, "unknown_characters": dict(list(unknown.items())[:50])},
    )


def _torch() -> Any:
    try:
        import onnx2torch  # noqa: F401 - whether it is there
        import torch
    except ImportError as error:
        raise MissingExtraError(
            f"A library that the recogniser is fine-tuned with cannot be loaded ({error}).",
            expected='the extra "train".',
            do="Run `pip install keepsight[train]`, or train with the recipe `fields` or `pretrained`.",
            extra="train",
        ) from error
    return torch


def _held(material: Material) -> NDArray[np.bool_]:
    """The documents that judge: the given val split, else a fifth of the groups, by chance."""
    with_lines = np.array([bool(value.get("lines")) for value in material.values])
    given = material.validation & with_lines
    if given.any() and (with_lines & ~given).any():
        return material.validation
    of = np.unique(material.groups, return_inverse=True)[1]
    groups = np.unique(of[with_lines])
    order = np.random.default_rng(material.seed).permutation(groups)
    chosen = order[: max(1, round(_HELD_SHARE * len(groups)))] if len(groups) > 1 else order[:0]
    held: NDArray[np.bool_] = np.isin(of, chosen)
    return held


def _lines(
    material: Material, reader: Reader, held: NDArray[np.bool_]
) -> tuple[list[_Line], list[_Line], Mapping[str, int]]:
    """The lines that train, those that judge, and the characters that no line may have.

    Raises:
        DataError: None is left.
    """
    texts = [line["text"] for value in material.values for line in value.get("lines") or ()]
    unknown = unknown_characters(texts, reader.characters)
    engine = reader.engine()
    found: tuple[list[_Line], list[_Line]] = ([], [])
    for place, value in enumerate(material.values):
        wanted = [line for line in value.get("lines") or () if not set(line["text"]) & unknown.keys()]
        data = material.read(place) if wanted else None
        if data is None or (held[place] and len(found[1]) >= _MOST_HELD_LINES):
            continue
        try:
            item = prepared(engine, data)
        except PictureError:
            continue
        scale = np.array([item.image.width / item.size[0], item.image.height / item.size[1]] * 2)
        for line in wanted:
            x1, y1, x2, y2 = np.array(line["box"]) * scale
            corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)
            part = recognition.cut(item.image, corners)
            if part.width <= _LONGEST * part.height:
                found[int(held[place])].append(_Line(part, line["text"]))
    if unknown:
        named = ", ".join(f'"{sign}"' for sign in list(unknown)[:20])
        material.progress({"text": f"left out lines with characters that the recogniser does not know: {named}"})
    if not found[0]:
        named = ", ".join(f'"{sign}" (U+{ord(sign):04X})' for sign in list(unknown)[:20])
        raise DataError(
            "No annotated line can be learned from"
            + (f": the recogniser does not know the characters {named}." if unknown else ": there is none."),
            expected="lines with a text in a script that the recogniser knows, and a box.",
            do="Choose a train.reader that knows the script, or train with the recipe `fields`."
            if unknown
            else "Correct some documents on the review page first, or train with the recipe `fields`.",
            characters=list(unknown)[:100],
        )
    return found[0], found[1], unknown


def _network(recogniser: bytes) -> Any:
    """The recogniser as a torch network that gives scores before the softmax, all of whose constants can be trained.

    Raises:
        TrainingError: It does not end in a softmax.
    """
    import onnx
    import torch
    from onnx2torch import convert

    model = onnx.load_from_string(recogniser)
    _fix_padding(model.graph)
    last = next(node for node in model.graph.node if recognition.SHARES in node.output)
    if last.op_type != "Softmax":
        raise TrainingError(
            f"The recogniser ends in {last.op_type}.",
            expected="a softmax over the characters.",
            do="Train with the recipe `fields` or `pretrained`.",
        )
    model.graph.output[0].name = last.input[0]
    model.graph.node.remove(last)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = convert(model)
    for module in network.modules():
        for name, value in list(module._buffers.items()):
            if value is not None and value.is_floating_point() and value.numel() > 1 and "running" not in name:
                del module._buffers[name]
                module.register_parameter(name, torch.nn.Parameter(value.clone()))
    # Its layers stay as they answer: few lines would bend the statistics of batch normalisation.
    return network.eval()


def _fix_padding(graph: Any) -> None:
    """Writes automatic padding as numbers, which hold for inputs that the strides divide (`recognition.padded`)."""
    from onnx import helper

    shapes = {item.name: list(item.dims) for item in graph.initializer}
    for node in graph.node:
        given = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        kind = given.get("auto_pad", b"NOTSET")
        if kind == b"NOTSET":
            continue
        kernel = given.get("kernel_shape") or shapes[node.input[1]][2:]
        strides = given.get("strides", [1] * len(kernel))
        dilations = given.get("dilations", [1] * len(kernel))
        wanted = [
            0 if kind == b"VALID" else max(0, (side - 1) * dilation + 1 - stride)
            for side, stride, dilation in zip(kernel, strides, dilations, strict=True)
        ]
        less, more = [side // 2 for side in wanted], [side - side // 2 for side in wanted]
        pads = less + more if kind != b"SAME_LOWER" else more + less
        kept = [item for item in node.attribute if item.name not in {"auto_pad", "pads"}]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("pads", pads)])


def _steps(
    material: Material,
    network: Any,
    lines: Sequence[_Line],
    characters: Sequence[str],
    *,
    random: np.random.Generator,
    wanted: int,
    deadline: float,
) -> int:
    """Trains, and gives the number of steps; ends before ``deadline`` seconds of the budget are left."""
    import torch

    place_of = {sign: number for number, sign in enumerate(characters, start=1)} | {" ": len(characters) + 1}
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=0.0)
    first = _resume(material, network)
    step = first
    order: list[int] = []
    while step < wanted:
        if material.plan is None and deadline and material.budget.left_s < deadline and step > first:
            break
        share = step / wanted
        rate = _RATE * min(1.0, (step + 1) / _WARM_STEPS) * (0.05 + 0.95 * (1 + math.cos(math.pi * share)) / 2)
        for group in optimiser.param_groups:
            group["lr"] = rate
        count = _BATCH - round(_BATCH * _RENDERED_SHARE)
        if len(order) < count:
            order = _by_width(lines, count, random=random)
        chosen = [lines[order.pop()] for _ in range(min(count, len(order)))]
        texts = [lines[int(random.integers(len(lines)))].text for _ in range(_BATCH - len(chosen))]
        rendered = rendering.lines(texts, characters, random=random)
        batch = [rendering.varied(line.image, random=random) for line in chosen] + [image for image, _ in rendered]
        wanted_texts = [line.text for line in chosen] + [text for _, text in rendered]
        targets = [[place_of[sign] for sign in text] for text in wanted_texts]
        tensors = [recognition.tensor(image) for image in batch]
        logs = network(torch.from_numpy(recognition.padded(tensors))).log_softmax(2).transpose(0, 1)
        loss = torch.nn.functional.ctc_loss(
            logs,
            torch.tensor([sign for target in targets for sign in target]),
            torch.full((len(targets),), logs.shape[0]),
            torch.tensor([len(target) for target in targets]),
            zero_infinity=True,
        )
        if not torch.isfinite(loss):
            raise TrainingError(
                f"The loss is not finite after {step} steps.",
                expected="lines whose texts are what their pictures show.",
                do="Check the corrected lines, or train with the recipe `fields`.",
            )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
        optimiser.step()
        step += 1
        if step % 10 == 0 or step == wanted:
            material.progress({"text": "learning lines", "done": step, "total": wanted})
        if step % _SAVE_EVERY == 0:
            _save(material, network, step)
    return step


def _by_width(lines: Sequence[_Line], count: int, *, random: np.random.Generator) -> list[int]:
    """All lines in an order by chance in which those of like width follow each other, so that little is padding."""
    widths = np.array([line.image.width / max(1, line.image.height) for line in lines])
    order = np.argsort(widths * random.uniform(0.9, 1.1, len(lines)))
    groups = [order[start : start + count] for start in range(0, len(order), count)]
    return [int(place) for group in random.permutation(len(groups)) for place in groups[group]]


def _save(material: Material, network: Any, step: int) -> None:
    path = material.folder / CHECKPOINT
    draft = path.with_suffix(".part")
    with draft.open("wb") as file:
        np.savez(file, step=np.array(step), **{name: value.numpy() for name, value in network.state_dict().items()})
    draft.replace(path)


def _resume(material: Material, network: Any) -> int:
    """Takes up an attempt that was cut off; the steps that it had done."""
    import torch

    try:
        with np.load(material.folder / CHECKPOINT, allow_pickle=False) as arrays:
            state = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "step"}
            network.load_state_dict(state)
            return int(arrays["step"])
    except (FileNotFoundError, ValueError, RuntimeError, KeyError):
        return 0


def _chosen(
    material: Material,
    network: Any,
    *,
    old: Mapping[str, Any],
    reader: Reader,
    held: Sequence[_Line],
    general: Sequence[_Line],
    replayed: float | None,
) -> tuple[float, bytes | None, dict[str, Any]]:
    """The mixture of old and new weights that reads held-out lines best without forgetting; its network, its figures.

    Without held-out lines nothing can show that the new weights are better, and the old ones stay.
    """
    new = {name: value.clone() for name, value in network.state_dict().items()}
    before = (_errors(reader.recogniser, held, reader), _errors(reader.recogniser, general, reader, caseless=True))
    best, chosen, network_bytes = 0.0, before, None
    tried = []
    candidates = [replayed] if replayed is not None else [share for share in _MIXTURES if held and share > 0]
    for share in candidates:
        if not share:
            continue
        material.progress({"text": f"judging the recogniser ({share:.0%} of what was learned)"})
        network.load_state_dict(
            {
                name: old[name] + share * (value - old[name]) if value.is_floating_point() else value
                for name, value in new.items()
            }
        )
        content = _exported(network)
        found = (_errors(content, held, reader), _errors(content, general, reader, caseless=True))
        tried.append({"share": share, "cer": found[0], "general": found[1]})
        better = found[0] < chosen[0] and found[1] <= before[1] + _FORGETTING
        if better or replayed is not None:
            best, chosen, network_bytes = share, found, content
    figures = {
        "cer_before": before[0] if held else None,
        "cer_after": chosen[0] if held else None,
        "general_before": before[1],
        "general_after": chosen[1],
        "tried": tried,
    }
    return best, network_bytes, figures


def _errors(recogniser: bytes, lines: Sequence[_Line], reader: Reader, *, caseless: bool = False) -> float:
    """Characters wrong over characters there are; ``caseless`` takes upper and lower case as equal.

    Whether case counts, the own documents teach: transcripts in upper case are no reason to keep the old weights.
    """
    read = recognition.read(open_session(recogniser), [line.image for line in lines], characters=reader.characters)
    wrong = 0
    for one, line in zip(read, lines, strict=True):
        told, true = " ".join(one.text.split()), line.text
        wrong += edit_distance(told.casefold(), true.casefold()) if caseless else edit_distance(told, true)
    return wrong / max(1, sum(len(line.text) for line in lines))


def _exported(network: Any) -> bytes:
    import torch

    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            torch.nn.Sequential(network, torch.nn.Softmax(dim=2)),
            (torch.zeros(2, 3, recognition.HEIGHT, 320),),
            out,
            input_names=[INPUT],
            output_names=[recognition.SHARES],
            dynamic_axes={INPUT: {0: "n", 3: "width"}, recognition.SHARES: {0: "n", 1: "steps"}},
            opset_version=17,
            dynamo=False,
        )
    return out.getvalue()
