"""The peer of bench/serve.py: what a developer writes in an afternoon with FastAPI, onnxruntime and Pillow.

One process, a pool of threads as large as the machine, one thread per run of the network; no log, no limits, no checks.

    python bench/serve_plain.py MODEL.onnx LABELS.json SIZE PORT
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI, Request
from PIL import Image


def make_app(model: Path, labels: list[str], size: int) -> FastAPI:
    """The application."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.read_bytes(), options, providers=["CPUExecutionProvider"])
    pool = ThreadPoolExecutor(os.cpu_count())
    app = FastAPI()

    def answer(data: bytes) -> dict[str, Any]:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        square = picture.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BILINEAR)
        tensor = ((np.asarray(square, np.float32) - 127) / 128).transpose(2, 0, 1)[None]
        (logits,) = session.run(["logits"], {"image": np.ascontiguousarray(tensor)})
        powers = np.exp(logits[0] - logits[0].max())
        shares = powers / powers.sum()
        best = np.argsort(-shares)[:5]
        return {"answers": [{"label": labels[index], "confidence": float(shares[index])} for index in best]}

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        data = await request.body()
        return await asyncio.get_running_loop().run_in_executor(pool, answer, data)

    return app


if __name__ == "__main__":
    model, labels, size, port = sys.argv[1:5]
    uvicorn.run(
        make_app(Path(model), json.loads(Path(labels).read_text()), int(size)),
        host="127.0.0.1",
        port=int(port),
        log_level="warning",
        access_log=False,
    )
