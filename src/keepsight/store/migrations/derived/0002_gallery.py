"""Galleries that change while they are served."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "keepsight_derived"


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "gallery",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("sample_id", sa.String(length=32), nullable=False),
        sa.Column(
            "space",
            sa.String(length=64),
            nullable=False,
            comment="what made the vector; empty: the sample was taken out",
        ),
        sa.Column("picture_id", sa.String(length=64), nullable=False),
        sa.Column("label", sa.String(length=200), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=True, comment="float16, little endian; NULL: taken out"),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "sample_id", "space", name=op.f("pk_gallery")),
        schema=SCHEMA,
        comment="what changed in galleries since their models were made; servers follow it",
    )
    op.create_index(op.f("ix_gallery_project_id_revision"), "gallery", ["project_id", "revision"], schema=SCHEMA)
    op.create_table(
        "gallery_revision",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False, comment="of the newest change"),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_gallery_revision")),
        schema=SCHEMA,
    )
