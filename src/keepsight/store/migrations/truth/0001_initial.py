"""The first tables of the truth area."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "keepsight"


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "audit",
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("actor", sa.String(length=120), nullable=False),
        sa.Column("action", sa.String(length=60), nullable=False),
        sa.Column("target", sa.String(length=300), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("previous_hash", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit")),
        schema=SCHEMA,
    )
    op.create_table(
        "blob",
        sa.Column("id", sa.String(length=64), nullable=False, comment="HMAC-SHA256 of the plaintext's sha256"),
        sa.Column(
            "location", sa.String(length=200), nullable=False, comment="name in the object store; empty once erased"
        ),
        sa.Column(
            "wrapped_key", sa.LargeBinary(), nullable=True, comment="data key under the workspace key; NULL once erased"
        ),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("erased_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blob")),
        schema=SCHEMA,
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("holder", sa.String(length=200), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lease")),
        schema=SCHEMA,
    )
    op.create_table(
        "project",
        sa.Column("id", sa.String(length=40), nullable=False, comment="the project's name"),
        sa.Column("task", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_project")),
        schema=SCHEMA,
    )
    op.create_table(
        "server",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("url", sa.String(length=200), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("host", sa.String(length=200), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_server")),
        schema=SCHEMA,
    )
    op.create_table(
        "setting",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("author", sa.String(length=120), nullable=False),
        sa.Column("set_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "name", name=op.f("pk_setting")),
        schema=SCHEMA,
    )
    op.create_table(
        "tag",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "name", name=op.f("pk_tag")),
        schema=SCHEMA,
    )
    op.create_table(
        "token",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token")),
        sa.UniqueConstraint("hash", name=op.f("uq_token_hash")),
        sa.UniqueConstraint("name", name=op.f("uq_token_name")),
        schema=SCHEMA,
    )
    op.create_table(
        "workspace",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workspace")),
        schema=SCHEMA,
    )
    op.create_table(
        "alert",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False, comment="drift, accuracy, gate, run"),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("trace_id", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("closed_at", sa.Double(), nullable=True),
        sa.Column("closed_by", sa.String(length=120), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], [f"{SCHEMA}.project.id"], name=op.f("fk_alert_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert")),
        schema=SCHEMA,
    )
    op.create_index(
        op.f("ix_alert_project_id_closed_at"), "alert", ["project_id", "closed_at"], unique=False, schema=SCHEMA
    )
    op.create_table(
        "annotation",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("sample_id", sa.String(length=32), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False, comment="task-typed"),
        sa.Column("author", sa.String(length=120), nullable=False),
        sa.Column("origin", sa.String(length=20), nullable=False, comment="import, review or feedback"),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("leaf", sa.String(length=64), nullable=False),
        sa.Column("added_in", sa.Integer(), nullable=True),
        sa.Column("removed_in", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], [f"{SCHEMA}.project.id"], name=op.f("fk_annotation_project_id")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_annotation")),
        schema=SCHEMA,
    )
    op.create_index(
        op.f("ix_annotation_project_id_added_in"), "annotation", ["project_id", "added_in"], unique=False, schema=SCHEMA
    )
    op.create_index(
        op.f("ix_annotation_project_id_removed_in"),
        "annotation",
        ["project_id", "removed_in"],
        unique=False,
        schema=SCHEMA,
    )
    op.create_index(
        op.f("ix_annotation_project_id_sample_id"),
        "annotation",
        ["project_id", "sample_id"],
        unique=False,
        schema=SCHEMA,
    )
    op.create_index(
        "uq_annotation_open",
        "annotation",
        ["project_id", "sample_id"],
        unique=True,
        schema=SCHEMA,
        sqlite_where=sa.text("removed_in IS NULL"),
        postgresql_where=sa.text("removed_in IS NULL"),
    )
    op.create_table(
        "deployment",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("model_number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False, comment="promote, override or rollback"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(length=120), nullable=False),
        sa.Column("run_id", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("live_at", sa.Double(), nullable=True, comment="all live servers had acknowledged"),
        sa.ForeignKeyConstraint(["project_id"], [f"{SCHEMA}.project.id"], name=op.f("fk_deployment_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployment")),
        sa.UniqueConstraint("run_id", name=op.f("uq_deployment_run_id")),
        schema=SCHEMA,
    )
    op.create_index(
        op.f("ix_deployment_project_id_id"), "deployment", ["project_id", "id"], unique=False, schema=SCHEMA
    )
    op.create_table(
        "evaluation",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("model_number", sa.Integer(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False, comment="slices, calibration, robustness, mistakes"),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], [f"{SCHEMA}.project.id"], name=op.f("fk_evaluation_project_id")),
        sa.PrimaryKeyConstraint("project_id", "model_number", name=op.f("pk_evaluation")),
        schema=SCHEMA,
    )
    op.create_table(
        "model",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("bundle_digest", sa.String(length=64), nullable=False),
        sa.Column("blob_id", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.String(length=32), nullable=True),
        sa.Column("status", sa.String(length=20), nullable=False, comment="challenger, champion, archived, discarded"),
        sa.Column("dataset_version", sa.Integer(), nullable=True),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["blob_id"], [f"{SCHEMA}.blob.id"], name=op.f("fk_model_blob_id")),
        sa.ForeignKeyConstraint(["project_id"], [f"{SCHEMA}.project.id"], name=op.f("fk_model_project_id")),
        sa.PrimaryKeyConstraint("project_id", "number", name=op.f("pk_model")),
        sa.UniqueConstraint("project_id", "run_id", name=op.f("uq_model_project_id_run_id")),
        schema=SCHEMA,
    )
    op.create_table(
        "picture",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("format", sa.String(length=10), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["id"], [f"{SCHEMA}.blob.id"], name=op.f("fk_picture_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_picture")),
        schema=SCHEMA,
    )
    op.create_table(
        "run",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column(
            "trigger", sa.String(length=20), nullable=False, comment="hand, api, drift, accuracy, labels, schedule"
        ),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(length=120), nullable=False),
        sa.Column("trace_id", sa.String(length=32), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False, comment="queued, running, done, failed, cancelled"),
        sa.Column("step", sa.String(length=20), nullable=True, comment="the step under way or the last one"),
        sa.Column("progress", sa.JSON(), nullable=True),
        sa.Column("outcome", sa.String(length=20), nullable=True, comment="deployed, ask, rejected, kept"),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("dataset_version", sa.Integer(), nullable=True),
        sa.Column("record", sa.JSON(), nullable=True, comment="plan, seed, digests, environment, code version, cost"),
        sa.Column("gate", sa.JSON(), nullable=True),
        sa.Column("model_number", sa.Integer(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], [f"{SCHEMA}.project.id"], name=op.f("fk_run_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
        sa.UniqueConstraint("seq", name=op.f("uq_run_seq")),
        schema=SCHEMA,
    )
    op.create_index(op.f("ix_run_project_id_status"), "run", ["project_id", "status"], unique=False, schema=SCHEMA)
    op.create_table(
        "version",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False, comment="Merkle root over the leaves"),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("author", sa.String(length=120), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("added", sa.Integer(), nullable=False),
        sa.Column("removed", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], [f"{SCHEMA}.project.id"], name=op.f("fk_version_project_id")),
        sa.PrimaryKeyConstraint("project_id", "number", name=op.f("pk_version")),
        schema=SCHEMA,
    )
    op.create_table(
        "acknowledgement",
        sa.Column("deployment_id", sa.Integer(), nullable=False),
        sa.Column("server_id", sa.String(length=32), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["deployment_id"], [f"{SCHEMA}.deployment.id"], name=op.f("fk_acknowledgement_deployment_id")
        ),
        sa.PrimaryKeyConstraint("deployment_id", "server_id", name=op.f("pk_acknowledgement")),
        schema=SCHEMA,
    )
    op.create_table(
        "membership",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("sample_id", sa.String(length=32), nullable=False, comment="stays the same over edits"),
        sa.Column("picture_id", sa.String(length=64), nullable=False),
        sa.Column(
            "split", sa.String(length=10), nullable=False, comment="train, val, test or recent; pending until a commit"
        ),
        sa.Column(
            "group_key", sa.String(length=200), nullable=False, comment="samples of one group never stand in two splits"
        ),
        sa.Column("name", sa.String(length=1000), nullable=False, comment="file name as imported"),
        sa.Column("meta", sa.JSON(), nullable=False),
        sa.Column("leaf", sa.String(length=64), nullable=False, comment="sha256 of the canonical row"),
        sa.Column("added_in", sa.Integer(), nullable=True),
        sa.Column("removed_in", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["picture_id"], [f"{SCHEMA}.picture.id"], name=op.f("fk_membership_picture_id")),
        sa.ForeignKeyConstraint(["project_id"], [f"{SCHEMA}.project.id"], name=op.f("fk_membership_project_id")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_membership")),
        schema=SCHEMA,
    )
    op.create_index(op.f("ix_membership_picture_id"), "membership", ["picture_id"], unique=False, schema=SCHEMA)
    op.create_index(
        op.f("ix_membership_project_id_added_in"), "membership", ["project_id", "added_in"], unique=False, schema=SCHEMA
    )
    op.create_index(
        op.f("ix_membership_project_id_removed_in"),
        "membership",
        ["project_id", "removed_in"],
        unique=False,
        schema=SCHEMA,
    )
    op.create_index(
        op.f("ix_membership_project_id_sample_id"),
        "membership",
        ["project_id", "sample_id"],
        unique=False,
        schema=SCHEMA,
    )
    op.create_index(
        "uq_membership_open",
        "membership",
        ["project_id", "sample_id"],
        unique=True,
        schema=SCHEMA,
        sqlite_where=sa.text("removed_in IS NULL"),
        postgresql_where=sa.text("removed_in IS NULL"),
    )
    op.create_table(
        "review_item",
        sa.Column("event_id", sa.String(length=32), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("picture_id", sa.String(length=64), nullable=False),
        sa.Column("selected_by", sa.String(length=20), nullable=False, comment="audit, uncertain, risky or feedback"),
        sa.Column("probability", sa.Double(), nullable=False, comment="inclusion probability"),
        sa.Column("priority", sa.Double(), nullable=False),
        sa.Column("model_number", sa.Integer(), nullable=False),
        sa.Column("prediction", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("answered_at", sa.Double(), nullable=True),
        sa.Column("author", sa.String(length=120), nullable=True),
        sa.Column(
            "verdict",
            sa.JSON(none_as_null=True),
            nullable=True,
            comment="the right annotation value, or {'skip': reason}",
        ),
        sa.Column("correct", sa.Integer(), nullable=True, comment="1, 0; NULL for skipped"),
        sa.ForeignKeyConstraint(["picture_id"], [f"{SCHEMA}.picture.id"], name=op.f("fk_review_item_picture_id")),
        sa.ForeignKeyConstraint(["project_id"], [f"{SCHEMA}.project.id"], name=op.f("fk_review_item_project_id")),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_review_item")),
        schema=SCHEMA,
    )
    op.create_index(
        op.f("ix_review_item_project_id_answered_at_priority"),
        "review_item",
        ["project_id", "answered_at", "priority"],
        unique=False,
        schema=SCHEMA,
    )
    if op.get_bind().dialect.name == "sqlite":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_no_{change.lower()} BEFORE {change} ON audit "
                "BEGIN SELECT RAISE(ABORT, 'the audit table is append-only'); END"
            )
    else:
        op.execute(
            f"CREATE FUNCTION {SCHEMA}.audit_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the audit table is append-only'; END $$"
        )
        op.execute(
            f"CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {SCHEMA}.audit "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.audit_append_only()"
        )
