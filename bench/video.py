"""Does memory grow with the length of a video? Prints the peak memory of reading a short and a long clip.

Run ``python bench/video.py [--seconds 10 600]``. It makes an MP4 of each length (moving noise, so that nothing is
cheap), and reads each in a process of its own: a frame each second and one after each cut, each as a JPEG file. Needs
the extra [video], and Linux.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WIDTH, HEIGHT, FPS = 640, 360, 25

READ = """
import json, sys, time
from pathlib import Path
import av
from keepsight.data import video

# Linux: the most memory that this program itself ever held. `ru_maxrss` begins with that of the parent.
def peak_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024

ending, began, taken, before = video.Ending(), time.perf_counter(), 0, peak_mb()
for frame in video.frames(Path(sys.argv[1]), sampling=video.Sampling(every_s=1.0), ending=ending):
    taken += len(frame.jpeg()) > 0
print(json.dumps({
    "taken": taken, "decoded": ending.frames, "seconds": time.perf_counter() - began,
    "before_mb": before, "peak_mb": peak_mb(),
}))
"""


def make(path: Path, seconds: float) -> None:
    """A clip of moving noise with a cut each 7 seconds."""
    import av
    import numpy as np

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 60, (HEIGHT, 2 * WIDTH, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = 2_000_000
        for number in range(int(seconds * FPS)):
            light = 60 * (number // (7 * FPS) % 4)
            start = 3 * number % WIDTH
            pixels = np.ascontiguousarray(noise[:, start : start + WIDTH]) + np.uint8(light)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def main() -> None:
    """Makes and reads the clips, one line for each, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, nargs="+", default=[10.0, 600.0], help="Lengths of the clips.")
    options = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for seconds in options.seconds:
            path = Path(folder) / f"{seconds:g}.mp4"
            began = time.perf_counter()
            make(path, seconds)
            made = time.perf_counter() - began
            done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True)
            told = json.loads(done.stdout)
            peaks.append(told["peak_mb"])
            print(
                f"{seconds:6g} s ({path.stat().st_size / 1e6:.1f} MB, made in {made:.0f} s): "
                f"{told['taken']} frames taken of {told['decoded']} in {told['seconds']:.1f} s; "
                f"peak {told['peak_mb']:.0f} MB ({told['before_mb']:.0f} MB before the first frame)",
                flush=True,
            )
    print(f"peak memory, longest against shortest: {peaks[-1] / peaks[0]:.2f}")


if __name__ == "__main__":
    main()
