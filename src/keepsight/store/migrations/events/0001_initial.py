"""The first tables of the events area."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "keepsight_events"


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "event",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("model_number", sa.Integer(), nullable=False),
        sa.Column("bundle_digest", sa.String(length=64), nullable=False),
        sa.Column("variant", sa.String(length=10), nullable=False, comment="float or int8"),
        sa.Column("prediction", sa.JSON(), nullable=False, comment="task-typed output"),
        sa.Column("label", sa.String(length=200), nullable=False, comment="the answer in one word, for counting"),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("decision", sa.String(length=10), nullable=False, comment="auto or review"),
        sa.Column("quality", sa.JSON(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("features", sa.LargeBinary(), nullable=True, comment="float16, little endian"),
        sa.Column("picture_id", sa.String(length=64), nullable=True, comment="where the picture was kept"),
        sa.Column(
            "sealed",
            sa.JSON(none_as_null=True),
            nullable=True,
            comment="the kept picture's object, until its row stands in truth",
        ),
        sa.Column("selected_by", sa.String(length=20), nullable=True),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("source", sa.String(length=200), nullable=False, comment="camera, shop or client"),
        sa.Column("trace_id", sa.String(length=32), nullable=False),
        sa.Column("meta", sa.JSON(), nullable=False),
        sa.Column("latency_ms", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_event")),
        sa.UniqueConstraint("id", name=op.f("uq_event_id")),
        schema=SCHEMA,
    )
    op.create_index(op.f("ix_event_picture_id"), "event", ["picture_id"], unique=False, schema=SCHEMA)
    op.create_index(op.f("ix_event_project_id_at"), "event", ["project_id", "at"], unique=False, schema=SCHEMA)
    op.create_index(op.f("ix_event_project_id_seq"), "event", ["project_id", "seq"], unique=False, schema=SCHEMA)
    op.create_index(
        "ix_event_waiting",
        "event",
        ["seq"],
        unique=False,
        schema=SCHEMA,
        sqlite_where=sa.text("sealed IS NOT NULL"),
        postgresql_where=sa.text("sealed IS NOT NULL"),
    )
    op.create_table(
        "feedback",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("event_id", sa.String(length=32), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False, comment="correct, wrong or label"),
        sa.Column("value", sa.JSON(), nullable=True),
        sa.Column("author", sa.String(length=120), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_feedback")),
        sa.UniqueConstraint("id", name=op.f("uq_feedback_id")),
        schema=SCHEMA,
    )
    op.create_index(
        op.f("ix_feedback_project_id_event_id"), "feedback", ["project_id", "event_id"], unique=False, schema=SCHEMA
    )
