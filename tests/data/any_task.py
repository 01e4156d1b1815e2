"""A task whose annotations have every part: what importers and exporters must serve without knowing it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from keepsight.errors import AnnotationError


def any_task(*parts: str) -> Any:
    """A task that takes these parts of an annotation and drops the others."""

    def parse(raw: Any) -> dict[str, Any]:
        if isinstance(raw, str):
            if "label" not in parts:
                raise AnnotationError(f'It is the text "{raw}".', expected=str(parts), do="Correct it.")
            raw = {"label": raw}
        value = {part: raw[part] for part in parts if part in raw}
        if not value:
            raise AnnotationError(f"It has {', '.join(raw)}.", expected=str(parts), do="Correct it.")
        return value

    def classes(value: Mapping[str, Any]) -> tuple[str, ...]:
        things = [item["label"] for part in ("boxes", "subjects") for item in value.get(part, [])]
        whole = [*value.get("flags", []), *value.get("labels", []), *([value["label"]] if "label" in value else [])]
        return tuple(sorted({*things, *whole}))

    return SimpleNamespace(
        parse=parse,
        canonical=lambda value: json.loads(json.dumps(value)),
        classes=classes,
        summary=lambda value: ", ".join(classes(value)) or "nothing",
        stratum=lambda value: "",
        check_trainable=lambda project, values: None,
    )
