"""A small search over fine-tuning settings: short trials, the best of which decides how the whole is trained.

Trials come in rounds. What a trial tries, and when it is given up, follows from the rounds before alone, so the place
where trials run, and how many at once, changes nothing in what they find. What was found stands in a journal (Optuna's)
in the run's folder; an attempt that was cut off goes on there.
"""

from __future__ import annotations

import functools
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from keepsight.errors import KeepsightError, MissingExtraError
from keepsight.executors import Executor
from keepsight.training.finetune.deciding import LEAST_EPOCHS, SECOND_SHARE
from keepsight.training.finetune.settings import Plan
from keepsight.training.finetune.trials import (
    COMPLETE,
    FIRST_PRUNING,
    LOOKS,
    OUT_OF_TIME,
    Ask,
    Bench,
    Outcome,
    Trials,
)

JOURNAL, FOUND = "search.journal", "search.json"
# Of the time that is left for training.
SHARE = 0.4
# Steps of a trial as a share of the first phase's.
LEAST_SHARE, MOST_SHARE, LEAST_STEPS = 0.1, 0.3, 20
_ROUNDS = 3
# So many trials must have come to a look before it can end another.
_LEAST_JUDGED = 3


@dataclass(frozen=True)
class Range:
    """Where a setting is searched."""

    low: float
    high: float
    log: bool = False


SPACE: Mapping[str, Range] = {
    "learning_rate": Range(1e-4, 4e-3, log=True),
    "weight_decay": Range(5e-3, 0.5, log=True),
    "mixup": Range(0.0, 0.6),
    "dropout": Range(0.0, 0.5),
}


@dataclass(frozen=True)
class Searched:
    """What a search gives.

    Attributes:
        plan: To train by; ``plan.search`` tells in short how it came about.
        trials: Every trial: number, settings, accuracy, nll, steps, state; JSON-able.
    """

    plan: Plan
    trials: list[dict[str, Any]]


@dataclass(frozen=True)
class _Scheme:
    """What was decided before the first trial; JSON-able.

    Attributes:
        trials: How many at most; 0 where too few fit.
        steps: Of each.
        round: Trials of a round.
        step_s: Seconds of a step on this machine; None where time does not matter.
        end_s: What must be left for training when the search ends; None where time does not matter.
        text: Why there are none.
    """

    trials: int
    steps: int
    round: int
    step_s: float | None
    end_s: float | None
    text: str = ""


def search(
    bench: Bench,
    *,
    trials: int,
    folder: Path,
    left_s: Callable[[], float],
    progress: Callable[[int, int], None],
    place: Callable[[], Executor] | None = None,
    space: Mapping[str, Range] = SPACE,
    clock: Callable[[], float] = time.monotonic,
) -> Searched:
    """The plan of ``bench`` with the settings that did best in short trials; its own are always the first trial.

    Args:
        bench: What is trained; its plan has the steps of the whole first phase.
        trials: At most so many.
        folder: Holds what was found, for an attempt that goes on.
        left_s: Seconds that are left for training, now; infinite where time does not matter.
        progress: Takes the trials that are done and their number; may raise to stop.
        place: Opens where trials run; None for this process, one after the other.
        space: Where is searched; widened by the plan's own values.
        clock: Seconds.

    Raises:
        MissingExtraError: Optuna is not installed.
        ExecutorError: The place failed. ConflictError: Its machines have other versions.
    """
    kept = _read(folder / FOUND)
    if kept is not None:
        return Searched(Plan.from_dict(kept["plan"]), kept["trials"])
    whole = bench.plan
    study = _Study(folder, bench, space)
    small = bench.small()
    executor = place() if place else None
    try:
        scheme = study.scheme
        if scheme is None:
            scheme = _decide(small, trials, left_s=left_s, clock=clock, executor=executor)
            study.keep(scheme)
        small = replace(small, plan=replace(whole, steps=scheme.steps))
        for outcome in _rounds(study, small, scheme, executor, left_s=left_s, progress=progress, clock=clock):
            study.tell(outcome)
    finally:
        if executor is not None:
            executor.close()
    outcomes = study.outcomes()
    searched = Searched(_planned(whole, scheme, outcomes, left_s=left_s()), [_row(each) for each in outcomes])
    _write(folder / FOUND, {"plan": searched.plan.as_dict(), "trials": searched.trials})
    return searched


def _decide(
    bench: Bench, trials: int, *, left_s: Callable[[], float], clock: Callable[[], float], executor: Executor | None
) -> _Scheme:
    """How many trials of how many steps fit into the search's share of the time."""
    plan = bench.plan
    most = min(plan.steps, max(LEAST_STEPS, round(MOST_SHARE * plan.steps)))
    least = min(plan.steps, max(LEAST_STEPS, round(LEAST_SHARE * plan.steps)))
    if trials < 2:
        return _Scheme(0, 0, 1, None, None, "one trial alone compares nothing")
    if not len(bench.held):
        return _Scheme(0, 0, 1, None, None, "there are no held-out pictures to judge by")
    size = _round_size(trials)
    if math.isinf(left_s()):
        return _Scheme(trials, most, size, None, None)
    speed = bench.speed(clock=clock)
    left = left_s()
    # Whatever is searched, a training that is worth its start must fit after it.
    needed = LEAST_EPOCHS * max(1, len(bench.rows) // plan.batch) * speed.step_s * (1 + SECOND_SHARE)
    share_s = min(SHARE * left, left - needed)
    slower, at_once = _elsewhere(executor, size)
    each = [slower * speed.trial_s(steps) for steps in (least, most)]
    turns = _turns(trials, size, at_once)
    if turns * each[1] <= share_s:
        count, steps = trials, most
    elif turns * each[0] <= share_s:
        count = trials
        steps = int(least + (most - least) * (share_s / turns - each[0]) / max(each[1] - each[0], 1e-9))
    else:
        count = max((n for n in range(trials) if _turns(n, _round_size(n), at_once) * each[0] <= share_s), default=0)
        size, steps = _round_size(count), least
    if count < 2:
        text = f"two trials take {2 * each[0]:.0f} seconds, and {max(0.0, share_s):.0f} could be spent on them"
        return _Scheme(0, 0, 1, speed.step_s, None, text)
    return _Scheme(count, steps, size, speed.step_s, left - share_s)


def _round_size(trials: int) -> int:
    return max(2, math.ceil(trials / _ROUNDS))


def _turns(trials: int, size: int, at_once: int) -> int:
    """How often the time of one trial passes."""
    full, rest = divmod(trials, size)
    return full * math.ceil(size / at_once) + math.ceil(rest / at_once)


def _elsewhere(executor: Executor | None, size: int) -> tuple[float, int]:
    """How much slower a trial is there than here, at most, and how many run at once."""
    if executor is None:
        return 1.0, 1
    threads = _threads(executor, size)
    return max(1.0, (os.cpu_count() or 1) / threads), max(1, min(size, executor.parallel // threads))


def _threads(executor: Executor, size: int) -> int:
    """Of each trial, so that a round keeps the place busy."""
    return max(1, executor.parallel // size)


def _rounds(
    study: _Study,
    bench: Bench,
    scheme: _Scheme,
    executor: Executor | None,
    *,
    left_s: Callable[[], float],
    progress: Callable[[int, int], None],
    clock: Callable[[], float],
) -> Iterator[Outcome]:
    """Outcomes in order, until all trials are made or the time is over."""
    shared = bench.shared() if executor is not None and scheme.trials else {}

    def seconds() -> float | None:
        return None if scheme.end_s is None else left_s() - scheme.end_s

    while (done := len(study.outcomes())) < scheme.trials:
        before = study.outcomes()[: done - done % scheme.round]
        bars = _bars(before)
        count = min(scheme.trials, len(before) + scheme.round) - done
        asked = [Ask(done + n, settings, bars) for n, settings in enumerate(study.ask(count, seed=bench.seed))]
        progress(done, scheme.trials)
        if executor is None:
            for ask in asked:
                limit = seconds()
                if limit is not None and limit <= 0:
                    return
                told = functools.partial(_tell, progress, done, scheme.trials)
                outcome = bench.run(replace(ask, seconds=limit), progress=told, clock=clock)
                yield outcome
                if outcome.state == OUT_OF_TIME:
                    return
                done += 1
                progress(done, scheme.trials)
            continue
        limit = seconds()
        if limit is not None and limit <= 0:
            return
        threads = _threads(executor, scheme.round)
        if limit is not None:
            # Those that wait for others begin later, with as much time.
            limit /= _turns(len(asked), len(asked), _elsewhere(executor, scheme.round)[1])
        items = [replace(ask, seconds=limit, threads=threads) for ask in asked]
        late = False
        for found in executor.map(Trials, items, shared=shared):
            if isinstance(found, KeepsightError):
                raise found
            yield found
            late = late or found.state == OUT_OF_TIME
            done += 1
            progress(done, scheme.trials)
        if late:
            return


def _tell(progress: Callable[[int, int], None], done: int, total: int, _share: float) -> None:
    progress(done, total)


def _bars(outcomes: Sequence[Outcome]) -> tuple[float | None, ...]:
    """For each look the median of the losses so far of the trials that came to it (as Golovin et al. 2017)."""
    bars: list[float | None] = []
    for look in range(LOOKS):
        seen = [each.curve[look] for each in outcomes if len(each.curve) > look]
        bars.append(median(seen) if look >= FIRST_PRUNING and len(seen) >= _LEAST_JUDGED else None)
    return tuple(bars)


def _planned(whole: Plan, scheme: _Scheme, outcomes: Sequence[Outcome], *, left_s: float) -> Plan:
    complete = [each for each in outcomes if each.state == COMPLETE and each.nll is not None]
    if len(complete) < 2:
        text = scheme.text or "fewer than two trials came to their end"
        return replace(whole, search={"trials": len(outcomes), "text": f"no search: {text}"})
    best = min(complete, key=lambda each: (each.nll, each.number))
    first = next((each for each in complete if each.number == 0), None)
    text = f"trial {best.number} is the best of {len(outcomes)}, with {scheme.steps} steps each"
    if best is first:
        text = (
            f"none of {len(outcomes)} trials, with {scheme.steps} steps each, is better than the settings as they were"
        )
    steps, more = whole.steps, whole.more_steps
    if scheme.step_s is not None and math.isfinite(left_s):
        # The search took its share: a schedule that fits beats one that the clock has to hurry.
        steps = max(1, min(steps, int(left_s / (scheme.step_s * (1 + SECOND_SHARE)))))
        more = min(more, math.ceil(SECOND_SHARE * steps))
    told = {"trials": len(outcomes), "trial": best.number, "nll": best.nll, "text": text}
    if first is not None:
        told["nll_as_it_was"] = first.nll
    found: dict[str, Any] = dict(best.settings)
    return replace(whole, **found, steps=steps, more_steps=more, search=told)


def _row(outcome: Outcome) -> dict[str, Any]:
    return {name: value for name, value in outcome.as_dict().items() if name != "curve"}


class _Study:
    """Optuna's study in a journal; trials stand in it in the order in which they were asked for."""

    def __init__(self, folder: Path, bench: Bench, space: Mapping[str, Range]) -> None:
        try:
            import optuna
        except ImportError:
            raise MissingExtraError(
                "Optuna is not installed, which the search over settings uses.",
                expected='the extra "train".',
                do="Run `pip install keepsight[train]`, or set train.search_trials to 0.",
                extra="train",
            ) from None
        from optuna.distributions import FloatDistribution
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self._optuna = optuna
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        path = folder / JOURNAL
        _mend(path)
        lock: Any = _Alone()
        self._study: Any = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path), lock)), study_name="finetune", load_if_exists=True
        )
        self._own = {name: float(getattr(bench.plan, name)) for name in space}
        self._space: dict[str, Any] = {
            name: FloatDistribution(min(at.low, self._own[name]), max(at.high, self._own[name]), log=at.log)
            for name, at in space.items()
        }
        self._running: dict[int, Any] = {}
        states = optuna.trial.TrialState
        # What an attempt before this one did not finish is made again, with the same settings.
        for stale in self._study.get_trials(states=(states.RUNNING,)):
            self._study.tell(stale.number, state=states.FAIL)
            if set(stale.params) == set(self._space):
                self._study.enqueue_trial(stale.params)

    @property
    def scheme(self) -> _Scheme | None:
        """What was decided before the first trial."""
        found = self._study.user_attrs.get("scheme")
        return None if found is None else _Scheme(**found)

    def keep(self, scheme: _Scheme) -> None:
        """Keeps it for attempts that go on."""
        self._study.set_user_attr("scheme", asdict(scheme))

    def outcomes(self) -> list[Outcome]:
        """Of the trials that are done."""
        states = self._optuna.trial.TrialState
        done = self._study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))
        return [Outcome.from_dict(trial.user_attrs["outcome"]) for trial in done]

    def ask(self, count: int, *, seed: int) -> list[dict[str, float]]:
        """Settings of the next trials: by seed, number and what is done, so that a killed search goes on alike."""
        begun = len(self.outcomes())
        states = self._optuna.trial.TrialState
        asked = []
        for number in range(begun, begun + count):
            if number == 0 and not self._study.get_trials(deepcopy=False, states=(states.WAITING,)):
                self._study.enqueue_trial(self._own)
            self._study.sampler = self._optuna.samplers.TPESampler(
                seed=int(np.random.SeedSequence((seed, number)).generate_state(1)[0]), n_startup_trials=4
            )
            trial = self._study.ask(self._space)
            self._running[number] = trial
            asked.append(dict(trial.params))
        return asked

    def tell(self, outcome: Outcome) -> None:
        """Keeps what came of a trial; one that had no time is forgotten."""
        states = self._optuna.trial.TrialState
        trial = self._running.pop(outcome.number)
        if outcome.state == OUT_OF_TIME:
            self._study.tell(trial, state=states.FAIL)
            return
        for look, loss in enumerate(outcome.curve):
            trial.report(loss, look)
        trial.set_user_attr("outcome", outcome.as_dict())
        if outcome.state == COMPLETE:
            self._study.tell(trial, outcome.nll)
        else:
            self._study.tell(trial, state=states.PRUNED)


class _Alone:
    """A lock for a file that one process has to itself; a real one would outlive a killed process."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _mend(path: Path) -> None:
    """Cuts off a last line that a killed process did not finish."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return found


def _write(path: Path, values: Mapping[str, Any]) -> None:
    partial = path.with_suffix(".new")
    partial.write_text(json.dumps(values), "utf-8")
    partial.replace(path)
