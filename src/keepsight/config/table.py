"""The table of settings: the only place where a setting is named.

The file, the environment, ``keepsight settings show``, the settings page and the documentation all read it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keepsight.config import kinds


@dataclass(frozen=True)
class Setting:
    """One row of the table of settings.

    ``scope`` is ``workspace`` or ``project``; ``unit`` is for people ("share 0-1", "milliseconds").
    """

    name: str
    scope: str
    default: Any
    unit: str
    help: str
    parse: Callable[[Any], Any]


TABLE: tuple[Setting, ...] = (
    Setting(
        "database",
        "workspace",
        None,
        "URL",
        "PostgreSQL URL; empty: SQLite files in the workspace folder.",
        kinds.text(optional=True),
    ),
    Setting(
        "blobs",
        "workspace",
        None,
        "URL",
        "Where pictures are kept: a folder, s3://, gs:// or az:// URL; empty: the workspace folder.",
        kinds.text(optional=True),
    ),
    Setting(
        "machine.eur_per_hour",
        "workspace",
        0.10,
        "euro per hour",
        "Price of this machine, for what training cost.",
        kinds.number(0, 1000),
    ),
    Setting(
        "machine.threads",
        "workspace",
        None,
        "threads",
        "Threads for training and serving; empty: all cores.",
        kinds.number(1, 256, optional=True),
    ),
    Setting(
        "executor",
        "workspace",
        "local",
        "",
        "Where features, trials and batches are computed: this machine, or a Ray cluster (extra [ray]).",
        kinds.choice("local", "ray"),
    ),
    Setting(
        "ray.address",
        "workspace",
        None,
        "address",
        "The Ray cluster, such as 10.0.0.5:6379 or auto; empty: one on this machine.",
        kinds.text(optional=True),
    ),
    Setting(
        "mlflow.url",
        "workspace",
        None,
        "URL",
        "MLflow server or SQL store that runs and models are mirrored to (extra [mlflow]).",
        kinds.text(optional=True),
    ),
    Setting(
        "serving.log",
        "workspace",
        "durable",
        "",
        "durable: an answer leaves after its event is on disk; relaxed: a crash may lose the last second.",
        kinds.choice("durable", "relaxed"),
    ),
    Setting("task", "project", "classification", "", "The kind of vision job.", kinds.text()),
    Setting(
        "data.val_share", "project", 0.1, "share 0-1", "Share of new groups that goes to val.", kinds.number(0, 0.5)
    ),
    Setting(
        "data.test_share", "project", 0.2, "share 0-1", "Share of new groups that goes to test.", kinds.number(0, 0.5)
    ),
    Setting(
        "data.near_duplicate",
        "project",
        None,
        "cosine 0-1",
        "Pictures at least this alike stay on one side of a split; empty: what the labels show.",
        kinds.number(0.5, 1, optional=True),
    ),
    Setting(
        "data.source",
        "project",
        None,
        "folder or URL",
        "Where `keepsight ci` takes the pictures from: a folder, or s3://, gs:// or az://.",
        kinds.text(optional=True),
    ),
    Setting(
        "registry.url",
        "project",
        None,
        "folder or URL",
        "Where `keepsight ci` finds the live model and leaves a released one: a folder, s3://, gs://, az:// or mlflow.",
        kinds.text(optional=True),
    ),
    Setting(
        "train.backbone",
        "project",
        "efficientnet-lite0",
        "",
        "A name from `keepsight zoo list`, timm/NAME for any network of timm, or the path of an ONNX file.",
        kinds.text(),
    ),
    Setting(
        "train.recipe",
        "project",
        "auto",
        "",
        "Which recipe trains: auto, or one of the task's own, such as head, finetune or pretrained.",
        kinds.text(),
    ),
    Setting("train.seed", "project", 0, "", "Seed of everything random in training.", kinds.integer(0, 2**31 - 1)),
    Setting(
        "train.budget_minutes",
        "project",
        10.0,
        "minutes",
        "Longest time for a training run, from pictures to model.",
        kinds.number(0.05, 10080),
    ),
    Setting(
        "train.max_cost_eur",
        "project",
        None,
        "euro",
        "Most that one training run may cost (time x machine.eur_per_hour).",
        kinds.number(0, 1e6, optional=True),
    ),
    Setting(
        "train.max_cost_eur_per_month",
        "project",
        None,
        "euro",
        "Most that the training of a project may cost in a calendar month (UTC).",
        kinds.number(0, 1e6, optional=True),
    ),
    Setting(
        "train.augment",
        "project",
        ["light", "blur", "noise", "jpeg", "rotation", "crop", "occlusion", "flip"],
        "names",
        "Changes of pictures that fine-tuning trains on; those that would change labels are left out by themselves.",
        kinds.names("light", "blur", "noise", "jpeg", "rotation", "crop", "occlusion", "flip"),
    ),
    Setting(
        "train.search_trials",
        "project",
        0,
        "trials",
        "Trials of a small search over fine-tuning settings, within the budget; 0: none.",
        kinds.integer(0, 1000),
    ),
    Setting(
        "train.weights",
        "project",
        None,
        "file",
        "File with the weights of a timm backbone; empty: those that were fetched, or the hub's.",
        kinds.text(optional=True),
    ),
    Setting(
        "train.false_alarms",
        "project",
        0.05,
        "share 0-1",
        "Share of harmless pictures that a flag may be raised for; the thresholds of flags are set by it.",
        kinds.number(0.0001, 0.5),
    ),
    Setting(
        "train.int8",
        "project",
        False,
        "",
        "Also make an 8-bit network (about a third of the size, half the time), checked against the float one.",
        kinds.flag,
    ),
    Setting(
        "train.checkpoints",
        "project",
        None,
        "folder or URL",
        "Where checkpoints travel to, so that a run whose machine is taken away goes on on another one.",
        kinds.text(optional=True),
    ),
    Setting(
        "evaluation.robustness_pictures",
        "project",
        300,
        "pictures",
        "Test pictures that are spoiled on purpose to see what a model bears; 0: none.",
        kinds.integer(0, 100000),
    ),
    Setting(
        "gate.margin",
        "project",
        0.02,
        "share 0-1",
        "A release may be this much worse than the live model, at most.",
        kinds.number(0, 1),
    ),
    Setting(
        "gate.margin_drift",
        "project",
        0.05,
        "share 0-1",
        "The same on the frozen test split, where drift started the run.",
        kinds.number(0, 1),
    ),
    Setting(
        "gate.min_accuracy",
        "project",
        None,
        "share 0-1",
        "Least accuracy on the test split.",
        kinds.number(0, 1, optional=True),
    ),
    Setting("gate.min_recall", "project", {}, "share 0-1 per class", "Least recall of named classes.", kinds.shares),
    Setting(
        "gate.min_metric",
        "project",
        {},
        "share 0-1 per metric",
        "Least value of named metrics on the test split, such as {f1: 0.8} or {precision of knife: 0.9}.",
        kinds.shares,
    ),
    Setting(
        "gate.min_slice",
        "project",
        {},
        "share 0-1 per slice",
        "Least accuracy of named slices, such as {camera=door: 0.9}.",
        kinds.shares,
    ),
    Setting(
        "gate.max_slice_drop",
        "project",
        None,
        "share 0-1",
        "No slice (a value of a metadata column) may fall by more than this against the live model.",
        kinds.number(0, 1, optional=True),
    ),
    Setting(
        "gate.max_ece",
        "project",
        None,
        "share 0-1",
        "Largest expected calibration error on the test split, by its interval.",
        kinds.number(0, 1, optional=True),
    ),
    Setting(
        "gate.min_robustness",
        "project",
        None,
        "share 0-1",
        "Least share of its clean accuracy that a model keeps under every disturbance (dark, blurred, ...).",
        kinds.number(0, 1, optional=True),
    ),
    Setting(
        "gate.min_pictures",
        "project",
        0,
        "pictures",
        "Fewer test pictures than this are no evidence: a person is asked.",
        kinds.integer(0, 10**9),
    ),
    Setting(
        "gate.max_latency_ms",
        "project",
        None,
        "milliseconds",
        "Longest median time for one picture on this machine.",
        kinds.number(0.1, 60000, optional=True),
    ),
    Setting(
        "gate.max_size_mb",
        "project",
        None,
        "megabytes",
        "Largest network file, of the variant that is served.",
        kinds.number(0.01, 100000, optional=True),
    ),
    Setting(
        "gate.max_int8_drop",
        "project",
        0.02,
        "share 0-1",
        "The 8-bit network may have this much less recall in a class than the float one; decides where it is served.",
        kinds.number(0, 1),
    ),
    Setting(
        "gate.licences",
        "project",
        [],
        "SPDX identifiers",
        "Licences of weights that may be released; empty: those of the weights that Keepsight offers. "
        "Restricted ones (AGPL, non-commercial) are not even loaded unless named here.",
        kinds.names(),
    ),
    Setting(
        "privacy.consent",
        "project",
        "optional",
        "",
        "required: no release by itself while consent of the pictures cannot be shown.",
        kinds.choice("optional", "required"),
    ),
    Setting(
        "serving.variant",
        "project",
        "float",
        "",
        "Which network answers: float, or int8, the quicker 8-bit one; a model without one answers with float.",
        kinds.choice("float", "int8"),
    ),
    Setting("serving.top_k", "project", 5, "answers", "How many alternatives an answer lists.", kinds.integer(1, 100)),
    Setting(
        "review.audit_share",
        "project",
        0.05,
        "share 0-1",
        "Random share of pictures that a person checks blind; accuracy is estimated from these.",
        kinds.number(0, 1),
    ),
    Setting(
        "review.audit_share_alarm",
        "project",
        0.25,
        "share 0-1",
        "The same while a drift or accuracy alarm is open.",
        kinds.number(0, 1),
    ),
    Setting(
        "review.min_confidence",
        "project",
        None,
        "probability 0-1",
        "Below this a person is asked; empty: what the model learned from its own data.",
        kinds.number(0, 1, optional=True),
    ),
    Setting(
        "review.target_accuracy",
        "project",
        0.95,
        "share 0-1",
        "Accuracy that answers without review should have.",
        kinds.number(0.5, 1),
    ),
    Setting(
        "monitor.drift_alpha",
        "project",
        0.01,
        "probability 0-1",
        "Chance of ever a false drift alarm for one deployed model.",
        kinds.number(1e-6, 0.5),
    ),
    Setting(
        "monitor.drift_false_alarm_every",
        "project",
        None,
        "pictures",
        "Instead: at most one false alarm in so many pictures, on average.",
        kinds.number(100, 1e9, optional=True),
    ),
    Setting(
        "monitor.accuracy_tolerance",
        "project",
        0.05,
        "share 0-1",
        "Alarm when audited accuracy is this far below its release figure.",
        kinds.number(0.001, 1),
    ),
    Setting(
        "retrain.on_drift",
        "project",
        True,
        "",
        "Retrain after a drift alarm, once there are enough new labels.",
        kinds.flag,
    ),
    Setting("retrain.on_accuracy", "project", True, "", "The same after an accuracy alarm.", kinds.flag),
    Setting(
        "retrain.min_new_labels",
        "project",
        100,
        "labels",
        "New labels needed before an alarm retrains.",
        kinds.integer(1, 10**9),
    ),
    Setting(
        "retrain.new_labels",
        "project",
        500,
        "labels",
        "Retrain when so many new labels are there; 0: never.",
        kinds.integer(0, 10**9),
    ),
    Setting("retrain.schedule", "project", None, "cron", "Retrain at these times (UTC).", kinds.cron),
    Setting(
        "retrain.cooldown_minutes",
        "project",
        60.0,
        "minutes",
        "Least time between two retrains that start by themselves.",
        kinds.number(0, 525600),
    ),
)

BY_NAME: dict[str, Setting] = {setting.name: setting for setting in TABLE}
