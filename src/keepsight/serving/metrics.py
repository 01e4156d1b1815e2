"""Counts and latencies of one server in Prometheus' text format.

A counter is a number under its labels; counting is one dictionary update under a lock, so it costs a request less than
a microsecond or two. Every series carries the server's id: of several workers behind one port, each scrape meets one.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping

from keepsight.monitoring.latency import LatencyHistogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Labels = tuple[tuple[str, str], ...]

_HELP = {
    "keepsight_requests_total": "Pictures answered, by HTTP status.",
    "keepsight_errors_total": "Errors answered, by code.",
    "keepsight_decisions_total": "Answers by decision: auto, or review by a person.",
    "keepsight_selected_total": "Pictures kept for review, by what selected them.",
    "keepsight_feedback_total": "Feedback taken, by kind.",
}


class Metrics:
    """What ``/metrics`` tells of one server."""

    def __init__(self, *, server_id: str = "") -> None:
        self._server: _Labels = (("server", server_id),) if server_id else ()
        self._lock = threading.Lock()
        self._counters: defaultdict[str, defaultdict[_Labels, int]] = defaultdict(lambda: defaultdict(int))
        self._latency: defaultdict[_Labels, LatencyHistogram] = defaultdict(LatencyHistogram)

    def count(self, name: str, **labels: str) -> None:
        """Adds one to a counter."""
        with self._lock:
            self._counters[name][tuple(labels.items())] += 1

    def answered(self, *, project: str, model: str, decision: str, selected_by: str | None, latency_ms: float) -> None:
        """Counts one answered picture."""
        model_labels = (("project", project), ("model", model))
        with self._lock:
            self._counters["keepsight_requests_total"][(*model_labels, ("status", "200"))] += 1
            self._counters["keepsight_decisions_total"][(*model_labels, ("decision", decision))] += 1
            if selected_by is not None:
                self._counters["keepsight_selected_total"][(("project", project), ("by", selected_by))] += 1
            self._latency[model_labels].observe(latency_ms)

    def failed(self, *, project: str, status: int, code: str) -> None:
        """Counts one picture that got an error."""
        with self._lock:
            self._counters["keepsight_requests_total"][
                (("project", project), ("model", ""), ("status", str(status)))
            ] += 1
            self._counters["keepsight_errors_total"][(("project", project), ("code", code))] += 1

    def text(self, *, models: Mapping[str, tuple[int, str]], waiting: int) -> str:
        """The exposition.

        Args:
            models: Model number and bundle digest by project, of what is served now.
            waiting: Events not yet where they belong.
        """
        lines: list[str] = []
        with self._lock:
            for name in sorted(self._counters):
                _head(lines, name, "counter", _HELP.get(name, name))
                lines += [
                    f"{name}{self._labels(labels)} {value}" for labels, value in sorted(self._counters[name].items())
                ]
            name = "keepsight_predict_seconds"
            _head(lines, name, "histogram", "From the complete request to the answer.")
            for labels, histogram in sorted(self._latency.items()):
                for edge, count in histogram.prometheus_buckets():
                    le = "+Inf" if math.isinf(edge) else f"{edge:g}"
                    lines.append(f"{name}_bucket{self._labels((*labels, ('le', le)))} {count}")
                lines.append(f"{name}_sum{self._labels(labels)} {histogram.sum_ms / 1000:.6f}")
                lines.append(f"{name}_count{self._labels(labels)} {histogram.count}")
        _head(lines, "keepsight_model_info", "gauge", "The model that answers, by project.")
        for project, (number, digest) in sorted(models.items()):
            told = (("project", project), ("model", str(number)), ("digest", digest))
            lines.append(f"keepsight_model_info{self._labels(told)} 1")
        _head(lines, "keepsight_events_waiting", "gauge", "Events accepted and not yet where they belong.")
        lines.append(f"keepsight_events_waiting{self._labels(())} {waiting}")
        return "\n".join(lines) + "\n"

    def _labels(self, labels: Iterable[tuple[str, str]]) -> str:
        told = ",".join(f'{key}="{_escape(value)}"' for key, value in (*self._server, *labels))
        return f"{{{told}}}" if told else ""


def _head(lines: list[str], name: str, kind: str, text: str) -> None:
    lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
