"""A process of its own with an engine: ``python engine_process.py URL LOG RUN_ID``.

Its three steps write a line to LOG each; a trailing "!" is written when the step is through. It starts the run, waits
for its end and prints the state.
"""

from __future__ import annotations

import sys
from pathlib import Path

from keepsight.loop.engine import Engine
from keepsight.loop.workflow import Run, Step


def main(url: str, log: Path, run_id: str) -> None:
    def step(name: str) -> Step:
        def work(run: Run) -> dict[str, object]:
            with log.open("a") as lines:
                lines.write(name + "\n")
            return {"name": name, "seen": sorted(run.results), "from": run.args["dataset"]}

        return Step(name, work)

    engine = Engine(system_database_url=url, executor_id="trainer", application_version="1")
    engine.workflow("retrain", steps=[step("prepare"), step("train"), step("deploy")])
    engine.launch()
    engine.start("retrain", run_id, args={"dataset": "v3 “ä”"})
    print(engine.wait(run_id, timeout_s=60).state)
    engine.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
