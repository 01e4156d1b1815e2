"""All tables, in three areas: truth, events and derived.

On SQLite each area is a file with one writer, so that a long import never delays an answer; on PostgreSQL a schema.
Times are seconds since 1970 (UTC). Ids that users see are texts; ``seq`` columns give the order of arrival.

Versioned rows (``membership``, ``annotation``) are never changed: an edit closes a row and adds one. ``added_in`` and
``removed_in`` hold version numbers of the project; ``added_in`` is NULL until the next commit, and ``removed_in`` is 0
(``REMOVAL_PENDING``) for a committed row whose removal waits for the next commit.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

REMOVAL_PENDING = 0

# SQLite numbers rows by itself only where the type is exactly INTEGER.
Sequence = BigInteger().with_variant(Integer, "sqlite")

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

TRUTH = MetaData(schema="keepsight", naming_convention=NAMING)
EVENTS = MetaData(schema="keepsight_events", naming_convention=NAMING)
DERIVED = MetaData(schema="keepsight_derived", naming_convention=NAMING)
AREAS: dict[str, MetaData] = {"truth": TRUTH, "events": EVENTS, "derived": DERIVED}

# --- truth ----------------------------------------------------------------------------------------------------------

workspace = Table(
    "workspace",
    TRUTH,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

project = Table(
    "project",
    TRUTH,
    Column("id", String(40), primary_key=True, comment="the project's name"),
    Column("task", String(40), nullable=False),
    Column("created_at", Double, nullable=False),
)

setting = Table(
    "setting",
    TRUTH,
    Column("project_id", String(40), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("value", JSON, nullable=False),
    Column("author", String(120), nullable=False),
    Column("set_at", Double, nullable=False),
)

blob = Table(
    "blob",
    TRUTH,
    Column("id", String(64), primary_key=True, comment="HMAC-SHA256 of the plaintext's sha256"),
    Column("location", String(200), nullable=False, comment="name in the object store; empty once erased"),
    Column("wrapped_key", LargeBinary, nullable=True, comment="data key under the workspace key; NULL once erased"),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("erased_at", Double, nullable=True),
)

picture = Table(
    "picture",
    TRUTH,
    Column("id", String(64), ForeignKey("keepsight.blob.id"), primary_key=True),
    Column("format", String(10), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
)

membership = Table(
    "membership",
    TRUTH,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("project_id", String(40), ForeignKey("keepsight.project.id"), nullable=False),
    Column("sample_id", String(32), nullable=False, comment="stays the same over edits"),
    Column("picture_id", String(64), ForeignKey("keepsight.picture.id"), nullable=False),
    Column("split", String(10), nullable=False, comment="train, val, test or recent; pending until a commit"),
    Column("group_key", String(200), nullable=False, comment="samples of one group never stand in two splits"),
    Column("name", String(1000), nullable=False, comment="file name as imported"),
    Column("meta", JSON, nullable=False),
    Column("leaf", String(64), nullable=False, comment="sha256 of the canonical row"),
    Column("added_in", Integer, nullable=True),
    Column("removed_in", Integer, nullable=True),
    # At most one row of a sample counts at a time.
    Index(
        "uq_membership_open",
        "project_id",
        "sample_id",
        unique=True,
        sqlite_where=text("removed_in IS NULL"),
        postgresql_where=text("removed_in IS NULL"),
    ),
    Index(None, "project_id", "sample_id"),
    Index(None, "project_id", "added_in"),
    Index(None, "project_id", "removed_in"),
    Index(None, "picture_id"),
)

annotation = Table(
    "annotation",
    TRUTH,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("project_id", String(40), ForeignKey("keepsight.project.id"), nullable=False),
    Column("sample_id", String(32), nullable=False),
    Column("value", JSON, nullable=False, comment="task-typed"),
    Column("author", String(120), nullable=False),
    Column("origin", String(20), nullable=False, comment="import, review or feedback"),
    Column("created_at", Double, nullable=False),
    Column("leaf", String(64), nullable=False),
    Column("added_in", Integer, nullable=True),
    Column("removed_in", Integer, nullable=True),
    # At most one row of a sample counts at a time.
    Index(
        "uq_annotation_open",
        "project_id",
        "sample_id",
        unique=True,
        sqlite_where=text("removed_in IS NULL"),
        postgresql_where=text("removed_in IS NULL"),
    ),
    Index(None, "project_id", "sample_id"),
    Index(None, "project_id", "added_in"),
    Index(None, "project_id", "removed_in"),
)

version = Table(
    "version",
    TRUTH,
    Column("project_id", String(40), ForeignKey("keepsight.project.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("digest", String(64), nullable=False, comment="Merkle root over the leaves"),
    Column("message", Text, nullable=False),
    Column("author", String(120), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("samples", Integer, nullable=False),
    Column("added", Integer, nullable=False),
    Column("removed", Integer, nullable=False),
)

tag = Table(
    "tag",
    TRUTH,
    Column("project_id", String(40), primary_key=True),
    Column("name", String(100), primary_key=True),
    Column("number", Integer, nullable=False),
)

run = Table(
    "run",
    TRUTH,
    Column("id", String(32), primary_key=True),
    Column("seq", Integer, unique=True, nullable=False),
    Column("project_id", String(40), ForeignKey("keepsight.project.id"), nullable=False),
    Column("trigger", String(20), nullable=False, comment="hand, api, drift, accuracy, labels, schedule"),
    Column("reason", Text, nullable=False),
    Column("actor", String(120), nullable=False),
    Column("trace_id", String(32), nullable=False),
    Column("status", String(20), nullable=False, comment="queued, running, done, failed, cancelled"),
    Column("step", String(20), nullable=True, comment="the step under way or the last one"),
    Column("progress", JSON, nullable=True),
    Column("outcome", String(20), nullable=True, comment="deployed, ask, rejected, kept"),
    Column("params", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double, nullable=True),
    Column("finished_at", Double, nullable=True),
    Column("dataset_version", Integer, nullable=True),
    Column("record", JSON, nullable=True, comment="plan, seed, digests, environment, code version, cost"),
    Column("gate", JSON, nullable=True),
    Column("model_number", Integer, nullable=True),
    Column("error", JSON, nullable=True),
    Index(None, "project_id", "status"),
)

model = Table(
    "model",
    TRUTH,
    Column("project_id", String(40), ForeignKey("keepsight.project.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("bundle_digest", String(64), nullable=False),
    Column("blob_id", String(64), ForeignKey("keepsight.blob.id"), nullable=False),
    Column("run_id", String(32), nullable=True),
    Column("status", String(20), nullable=False, comment="challenger, champion, archived, discarded"),
    Column("dataset_version", Integer, nullable=True),
    Column("metrics", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("project_id", "run_id"),
)

evaluation = Table(
    "evaluation",
    TRUTH,
    Column("project_id", String(40), ForeignKey("keepsight.project.id"), primary_key=True),
    Column("model_number", Integer, primary_key=True),
    Column("data", JSON, nullable=False, comment="slices, calibration, robustness, mistakes"),
    Column("created_at", Double, nullable=False),
)

deployment = Table(
    "deployment",
    TRUTH,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("project_id", String(40), ForeignKey("keepsight.project.id"), nullable=False),
    Column("model_number", Integer, nullable=False),
    Column("kind", String(20), nullable=False, comment="promote, override or rollback"),
    Column("reason", Text, nullable=False),
    Column("actor", String(120), nullable=False),
    Column("run_id", String(32), nullable=True, unique=True),
    Column("created_at", Double, nullable=False),
    Column("live_at", Double, nullable=True, comment="all live servers had acknowledged"),
    Index(None, "project_id", "id"),
)

server = Table(
    "server",
    TRUTH,
    Column("id", String(32), primary_key=True),
    Column("url", String(200), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("host", String(200), nullable=False),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
)

acknowledgement = Table(
    "acknowledgement",
    TRUTH,
    Column("deployment_id", Integer, ForeignKey("keepsight.deployment.id"), primary_key=True),
    Column("server_id", String(32), primary_key=True),
    Column("at", Double, nullable=False),
    Column("error", Text, nullable=True),
)

lease = Table(
    "lease",
    TRUTH,
    Column("name", String(100), primary_key=True),
    Column("holder", String(200), nullable=False),
    Column("fence", Integer, nullable=False),
    Column("expires_at", Double, nullable=False),
)

alert = Table(
    "alert",
    TRUTH,
    Column("id", String(32), primary_key=True),
    Column("project_id", String(40), ForeignKey("keepsight.project.id"), nullable=False),
    Column("kind", String(20), nullable=False, comment="drift, accuracy, gate, run"),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("data", JSON, nullable=False),
    Column("trace_id", String(32), nullable=True),
    Column("created_at", Double, nullable=False),
    Column("closed_at", Double, nullable=True),
    Column("closed_by", String(120), nullable=True),
    Index(None, "project_id", "closed_at"),
)

review_item = Table(
    "review_item",
    TRUTH,
    Column("event_id", String(32), primary_key=True),
    Column("project_id", String(40), ForeignKey("keepsight.project.id"), nullable=False),
    Column("picture_id", String(64), ForeignKey("keepsight.picture.id"), nullable=False),
    Column("selected_by", String(20), nullable=False, comment="audit, uncertain, risky or feedback"),
    Column("probability", Double, nullable=False, comment="inclusion probability"),
    Column("priority", Double, nullable=False),
    Column("model_number", Integer, nullable=False),
    Column("prediction", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("answered_at", Double, nullable=True),
    Column("author", String(120), nullable=True),
    Column(
        "verdict", JSON(none_as_null=True), nullable=True, comment="the right annotation value, or {'skip': reason}"
    ),
    Column("correct", Integer, nullable=True, comment="1, 0; NULL for skipped"),
    Index(None, "project_id", "answered_at", "priority"),
)

token = Table(
    "token",
    TRUTH,
    Column("id", String(32), primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double, nullable=True),
)

audit = Table(
    "audit",
    TRUTH,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("actor", String(120), nullable=False),
    Column("action", String(60), nullable=False),
    Column("target", String(300), nullable=False),
    Column("detail", JSON, nullable=False),
    Column("previous_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

# --- events ---------------------------------------------------------------------------------------------------------

event = Table(
    "event",
    EVENTS,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("project_id", String(40), nullable=False),
    Column("at", Double, nullable=False),
    Column("model_number", Integer, nullable=False),
    Column("bundle_digest", String(64), nullable=False),
    Column("variant", String(10), nullable=False, comment="float or int8"),
    Column("prediction", JSON, nullable=False, comment="task-typed output"),
    Column("label", String(200), nullable=False, comment="the answer in one word, for counting"),
    Column("confidence", Double, nullable=False),
    Column("decision", String(10), nullable=False, comment="auto or review"),
    Column("quality", JSON, nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("features", LargeBinary, nullable=True, comment="float16, little endian"),
    Column("picture_id", String(64), nullable=True, comment="where the picture was kept"),
    Column(
        "sealed",
        JSON(none_as_null=True),
        nullable=True,
        comment="the kept picture's object, until its row stands in truth",
    ),
    Column("selected_by", String(20), nullable=True),
    Column("probability", Double, nullable=False),
    Column("source", String(200), nullable=False, comment="camera, shop or client"),
    Column("trace_id", String(32), nullable=False),
    Column("meta", JSON, nullable=False),
    Column("latency_ms", Double, nullable=False),
    Index(None, "project_id", "seq"),
    Index(None, "project_id", "at"),
    Index(None, "picture_id"),
    # Only the few events whose picture waits for its rows stand in it, so that looking for them costs nothing.
    Index(
        "ix_event_waiting",
        "seq",
        sqlite_where=text("sealed IS NOT NULL"),
        postgresql_where=text("sealed IS NOT NULL"),
    ),
)

feedback = Table(
    "feedback",
    EVENTS,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("project_id", String(40), nullable=False),
    Column("event_id", String(32), nullable=False),
    Column("at", Double, nullable=False),
    Column("kind", String(10), nullable=False, comment="correct, wrong or label"),
    Column("value", JSON, nullable=True),
    Column("author", String(120), nullable=False),
    Index(None, "project_id", "event_id"),
)

# --- derived --------------------------------------------------------------------------------------------------------

vector = Table(
    "vector",
    DERIVED,
    Column("picture_id", String(64), primary_key=True),
    Column("space", String(64), primary_key=True, comment="sha256 of backbone digest and preprocessing digest"),
    Column("data", LargeBinary, nullable=False, comment="float16, little endian"),
    Column("quality", LargeBinary, nullable=False, comment="blur, brightness, contrast: float32, little endian"),
)

derived = Table(
    "derived",
    DERIVED,
    Column("picture_id", String(64), primary_key=True),
    Column("kind", String(20), primary_key=True, comment="vector, event, reference, thumbnail"),
    Column("location", String(300), primary_key=True),
    Column("created_at", Double, nullable=False),
    comment="whatever was made from a picture, so that erasing finds it",
)

gallery = Table(
    "gallery",
    DERIVED,
    Column("project_id", String(40), primary_key=True),
    Column("sample_id", String(32), primary_key=True),
    Column("space", String(64), primary_key=True, comment="what made the vector; empty: the sample was taken out"),
    Column("picture_id", String(64), nullable=False),
    Column("label", String(200), nullable=False),
    Column("data", LargeBinary, nullable=True, comment="float16, little endian; NULL: taken out"),
    Column("revision", BigInteger, nullable=False),
    Index(None, "project_id", "revision"),
    comment="what changed in galleries since their models were made; servers follow it",
)

gallery_revision = Table(
    "gallery_revision",
    DERIVED,
    Column("project_id", String(40), primary_key=True),
    Column("revision", BigInteger, nullable=False, comment="of the newest change"),
)

monitor = Table(
    "monitor",
    DERIVED,
    Column("project_id", String(40), primary_key=True),
    Column("name", String(40), primary_key=True, comment="drift, accuracy, latency"),
    Column("bundle_digest", String(64), primary_key=True),
    Column("variant", String(10), primary_key=True),
    Column("last_seq", BigInteger, nullable=False),
    Column("state", LargeBinary, nullable=False),
    Column("updated_at", Double, nullable=False),
)
