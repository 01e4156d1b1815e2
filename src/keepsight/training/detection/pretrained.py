"""The recipe that takes the COCO detector as it is, for all of its classes or for those that the project names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np

from keepsight.errors import DataError
from keepsight.training.detection.recipe import served
from keepsight.training.recipes import PRETRAINED, Material, Trained
from keepsight.zoo import pretrained as zoo
from keepsight.zoo import ssd_mobilenet

MODEL = "ssd-mobilenet-v2-coco"
# Pictures that say what is shown and how sure an answer is; it has learned from none of them.
_ASKED = 1000


def knows(names: Sequence[str]) -> bool:
    """Whether the pretrained detector tells all of these classes."""
    return set(names) <= set(ssd_mobilenet.LABELS)


def take(material: Material) -> Trained:
    """The pretrained detector; annotated pictures, where there are some, decide what it shows.

    Raises:
        DataError: The project has classes that it does not know.
        WeightsError: The weights were not fetched.
    """
    if not knows(material.names):
        raise _unknown([name for name in material.names if name not in ssd_mobilenet.LABELS])
    found = zoo.load(MODEL, task="detection")
    labels = material.names or found.entry.labels
    places = [found.entry.labels.index(name) for name in labels]
    model = found.content if labels == found.entry.labels else only(found.content, places)
    rng = np.random.default_rng((material.seed, 5))
    asked = np.sort(rng.permutation(len(material.values))[:_ASKED]).tolist()
    return served(
        material,
        model,
        asked,
        labels=tuple(labels),
        preprocessing=found.entry.preprocessing,
        plan={"recipe": PRETRAINED, "model": MODEL, "digest": found.digest, "labels": list(labels)},
        figures={},
        licences=found.entry.licences,
        from_backbone=False,
    )


def only(model: bytes, places: Sequence[int]) -> bytes:
    """The network with the scores of these classes alone, in this order."""
    import onnx
    from onnx import helper, numpy_helper

    made = onnx.load_from_string(model)
    graph = made.graph
    for node in graph.node:
        node.output[:] = [f"all_{name}" if name == ssd_mobilenet.SCORES else name for name in node.output]
    graph.initializer.append(numpy_helper.from_array(np.array(places, np.int64), "classes"))
    graph.node.append(
        helper.make_node("Gather", [f"all_{ssd_mobilenet.SCORES}", "classes"], [ssd_mobilenet.SCORES], axis=2)
    )
    scores = next(output for output in graph.output if output.name == ssd_mobilenet.SCORES)
    scores.type.tensor_type.shape.dim[2].dim_value = len(places)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString(deterministic=True))


def _unknown(names: Sequence[str]) -> DataError:
    near = {name: difflib.get_close_matches(name, ssd_mobilenet.LABELS, n=1) for name in names}
    hints = [f'"{found[0]}" for "{name}"' for name, found in near.items() if found]
    return DataError(
        f"The pretrained detector does not know {', '.join(names[:10])}{' and others' if len(names) > 10 else ''}.",
        expected=f"some of COCO's {len(ssd_mobilenet.LABELS)} classes, such as {', '.join(ssd_mobilenet.LABELS[:8])}.",
        do=(f"Name the classes as COCO does ({', '.join(hints)}), or train" if hints else "Train")
        + " with the recipe `auto`.",
        classes=list(names),
    )
