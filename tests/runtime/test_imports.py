"""The runtime stands on four libraries: this is what makes it fit into a Lambda or on a camera."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# Everything else that is installed is refused on import; the runtime then answers a picture.
PROGRAM = """
import io, sys, sysconfig
from pathlib import Path

allowed = {"keepsight", "numpy", "onnxruntime", "simplejpeg", "PIL"}
refused = set()

class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in allowed or top in sys.stdlib_module_names or top.startswith("_"):
            return None
        refused.add(top)
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
import keepsight.runtime.predictor
from keepsight.runtime.bundle import Bundle

for name in sys.modules:
    part = name.split(".")
    if part[0] == "keepsight":
        assert part[1:2] in ([], ["errors"], ["plugins"], ["runtime"]), name
from PIL import Image
out = io.BytesIO()
Image.new("RGB", (40, 30), "red").save(out, "JPEG")
predictor = keepsight.runtime.predictor.Predictor(Bundle.open(sys.argv[1]))
print(predictor.predict(out.getvalue()).output.label)
print("refused:", *sorted(refused), file=sys.stderr)
"""


def test_only_the_four_libraries_are_imported() -> None:
    bundle = Path(__file__).parent / "fixtures" / "bundle-v1.zip"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(bundle)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "red"
