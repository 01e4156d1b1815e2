"""The first tables of the derived area."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "keepsight_derived"


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "derived",
        sa.Column("picture_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False, comment="vector, event, reference, thumbnail"),
        sa.Column("location", sa.String(length=300), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("picture_id", "kind", "location", name=op.f("pk_derived")),
        schema=SCHEMA,
        comment="whatever was made from a picture, so that erasing finds it",
    )
    op.create_table(
        "monitor",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False, comment="drift, accuracy, latency"),
        sa.Column("bundle_digest", sa.String(length=64), nullable=False),
        sa.Column("variant", sa.String(length=10), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "name", "bundle_digest", "variant", name=op.f("pk_monitor")),
        schema=SCHEMA,
    )
    op.create_table(
        "vector",
        sa.Column("picture_id", sa.String(length=64), nullable=False),
        sa.Column(
            "space", sa.String(length=64), nullable=False, comment="sha256 of backbone digest and preprocessing digest"
        ),
        sa.Column("data", sa.LargeBinary(), nullable=False, comment="float16, little endian"),
        sa.Column(
            "quality", sa.LargeBinary(), nullable=False, comment="blur, brightness, contrast: float32, little endian"
        ),
        sa.PrimaryKeyConstraint("picture_id", "space", name=op.f("pk_vector")),
        schema=SCHEMA,
    )
