"""A bundle as a model of MLflow: ``mlflow.pyfunc.load_model("models:/keepsight-shop@champion")`` answers pictures.

Loading needs the base install of Keepsight alone.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from keepsight import __version__
from keepsight.errors import BadInputError, PictureError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.predictor import Predictor

# Written next to the bundle, so that a server of MLflow can install what loading needs.
REQUIREMENTS = f"keepsight=={__version__}\n"


def save_model(bundle: Bundle, folder: Path, *, run_id: str) -> None:
    """Writes the bundle with MLflow's ``MLmodel`` beside it."""
    from mlflow.models import Model

    bundle.save(folder / "bundle")
    (folder / "requirements.txt").write_text(REQUIREMENTS, encoding="utf-8")
    model = Model(artifact_path="model", run_id=run_id, metadata={"keepsight_bundle": bundle.digest})
    model.add_flavor(
        "python_function",
        loader_module=__name__,
        data="bundle",
        python_version=".".join(str(part) for part in sys.version_info[:3]),
        env={"virtualenv": "requirements.txt"},
    )
    model.save(str(folder / "MLmodel"))


class BundleModel:
    """What ``mlflow.pyfunc`` wraps."""

    def __init__(self, bundle: Bundle) -> None:
        self._predictor = Predictor(bundle)

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """An answer for each picture, as ``keepsight predict --json`` gives it; an error where one cannot be read.

        Args:
            model_input: Pictures as bytes or base64 text: a list, an array, or a table with one column of them.
            params: ``top_k``, how many possibilities to list.
        """
        pictures = [_bytes(item) for item in _items(model_input)]
        answers = self._predictor.predict_many(pictures, top_k=int((params or {}).get("top_k", 5)))
        return [answer.as_dict() for answer in answers]


def _load_pyfunc(path: str) -> BundleModel:
    """MLflow calls this with the folder of the bundle."""
    bundle = Bundle.open(path)
    bundle.verify()
    return BundleModel(bundle)


def _items(given: Any) -> Iterable[Any]:
    if isinstance(given, bytes | str):
        return [given]
    if hasattr(given, "columns"):
        if len(given.columns) != 1:
            raise BadInputError(
                f"The table has {len(given.columns)} columns.",
                expected="one column, of pictures as bytes or base64 text.",
                do="Send that column alone.",
            )
        return list(given.iloc[:, 0])
    if isinstance(given, dict):
        return [item for values in given.values() for item in _items(values)]
    return list(given)


def _bytes(item: Any) -> bytes:
    if isinstance(item, bytes | bytearray):
        return bytes(item)
    try:
        return base64.b64decode(str(item), validate=True)
    except ValueError:
        raise PictureError(
            "An input is neither bytes nor base64 text.",
            expected="the content of a picture file.",
            do="Send the file's bytes, or these in base64.",
        ) from None
