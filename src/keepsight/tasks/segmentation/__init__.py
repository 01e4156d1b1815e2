"""Segmentation: an annotation is the mask of the foreground, ``{"mask": {"size": [height, width], "counts": ...}}``.

The mask has the size of the upright picture and is stored as COCO's run-length string. Figures: overlap (IoU), how well
the outline fits (boundary F) and the mean error of the soft matte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keepsight.errors import AnnotationError, DataError
from keepsight.runtime import rle
from keepsight.runtime.outputs.segmentation import GOOD, share_in_words
from keepsight.tasks.segmentation import figures
from keepsight.tasks.segmentation.figures import SegmentationMetrics, evaluate
from keepsight.tasks.segmentation.reading import mask_of

__all__ = [
    "FIGURES",
    "FIXED_PLACES",
    "GOOD",
    "HEADLINE",
    "SegmentationMetrics",
    "canonical",
    "check_trainable",
    "classes",
    "evaluate",
    "fits",
    "parse",
    "right",
    "score",
    "stratum",
    "summary",
    "uncertainty",
    "validate",
]

HEADLINE = "iou"
FIGURES = {
    "iou": "overlap with the right mask (IoU)",
    "boundary_f": "fit of the outline (boundary F, 0.8 % of the diagonal)",
    "mae": "error of the soft mask per pixel (the smaller the better)",
    "right": "share with nothing to correct (overlap of at least 0.9)",
}
FIXED_PLACES = True

# Pictures of a split have small, middling and large foregrounds in like shares.
_SMALL, _LARGE = 0.1, 0.4


def parse(raw: Any) -> dict[str, Any]:
    """The mask meant by ``{"mask": ...}`` (further keys, as predictions have, are dropped) or by a mask alone.

    A mask is a run-length form (``{"size", "counts"}``), polygons (``{"size", "polygons": [[x, y, x, y, ...], ...]}``),
    or the text of a PNG: base64, with or without ``data:image/png;base64,`` before it. See ``reading.mask_of``.

    An empty mask is one, too: a prediction may be that nothing stands in the foreground.

    Raises:
        AnnotationError: None of these.
    """
    return {"mask": rle.canonical(mask_of(raw["mask"] if isinstance(raw, Mapping) and "mask" in raw else raw))}


def canonical(value: Mapping[str, Any]) -> dict[str, Any]:
    """The mask as a compressed run-length string of one form: equal masks are equal texts.

    Raises:
        AnnotationError: There is no mask, or nothing belongs to it.
    """
    mask = rle.canonical(mask_of(value.get("mask")))
    if rle.area(mask) == 0:
        raise AnnotationError(
            "The mask is empty: no pixel belongs to the foreground.",
            expected="a mask with at least one pixel.",
            do="Paint the foreground; leave a picture that has none without an annotation.",
        )
    return {"mask": mask}


def validate(value: Mapping[str, Any], labels: Sequence[str]) -> None:  # noqa: ARG001 - a mask names no class
    """Makes sure that the annotation is a mask that is not empty.

    Raises:
        AnnotationError: It is not.
    """
    canonical(value)


def fits(value: Mapping[str, Any], size: tuple[int, int]) -> None:
    """Makes sure that the mask has the size of its picture.

    Args:
        value: The annotation.
        size: (width, height) of the upright picture.

    Raises:
        AnnotationError: It has another.
    """
    height, width = value["mask"]["size"]
    if (width, height) != tuple(size):
        turned = (height, width) == tuple(size)
        raise AnnotationError(
            f"The mask has {width} x {height} pixels, its picture {size[0]} x {size[1]}.",
            expected="a mask with the size of the upright picture.",
            do="Turn the mask as the picture's EXIF orientation says." if turned else "Make the mask at full size.",
        )


def classes(value: Mapping[str, Any]) -> tuple[str, ...]:  # noqa: ARG001 - the protocol of tasks
    """Nothing: a mask names no class."""
    return ()


def summary(value: Mapping[str, Any]) -> str:
    """How much of the picture the mask covers, in words."""
    return share_in_words(_share(value))


def stratum(value: Mapping[str, Any]) -> str:
    """Whether the foreground is small, middling or large."""
    share = _share(value)
    return "small" if share < _SMALL else "large" if share > _LARGE else "middling"


def uncertainty(prediction: Mapping[str, Any]) -> float:
    """How much a prediction needs a person, 0 to 1: one minus its confidence."""
    return min(1.0, max(0.0, 1.0 - float(prediction["confidence"])))


def score(prediction: Mapping[str, Any], value: Mapping[str, Any]) -> float:
    """The overlap (IoU) of both masks, 0 to 1; 0 where they have different sizes."""
    return figures.overlap(prediction["mask"], value["mask"])


def right(prediction: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Whether the masks overlap so far (IoU of at least 0.9) that nothing needs correcting."""
    return score(prediction, value) >= GOOD


def check_trainable(project: str, values: Sequence[Mapping[str, Any]]) -> None:
    """Makes sure that there is something to learn from.

    Raises:
        DataError: There is no mask.
    """
    if not values:
        raise DataError(
            f"{project} has no pictures with masks in train or val.",
            expected="pictures and their masks.",
            do=f"Import some: `keepsight data import {project} FOLDER` with images/ and masks/ of equal names.",
        )


def _share(value: Mapping[str, Any]) -> float:
    height, width = value["mask"]["size"]
    return rle.area(value["mask"]) / int(height * width)
