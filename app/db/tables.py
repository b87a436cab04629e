"""The whole schema. `migrations/` brings a database to it; a test checks that the two agree.

JSON is stored as bytes: it is never queried, and `jsonb` doubles the server's CPU per row. Times are Unix seconds if
nothing else is said.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

REVISION = "0009"
"""The migration that produces this schema.

The serving process compares it with the database's without loading Alembic.
"""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

projects = Table(
    "projects",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("last_used_at", BigInteger),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

# One row per turn, with only that turn's own items. A deleted response remains as a tombstone: `deleted_at` set, bytes
# removed. `previous_id` is not a foreign key: an expired ancestor is removed before its descendants.
responses = Table(
    "responses",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("previous_id", String(36), index=True),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    Column("deleted_at", BigInteger),
    Column("status", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("response", LargeBinary, nullable=False),
    Column("input", LargeBinary, nullable=False),
    Column("cuts", LargeBinary),
    Column("inherited", LargeBinary),
    Column("exchanges", LargeBinary),
)

# The location of items whose ids the client chose; every other id names its response.
foreign_items = Table(
    "foreign_items",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column("response_id", String(36), ForeignKey(responses.c.id, ondelete="CASCADE"), primary_key=True, index=True),
)

# Frames of live runs, one batch per row; `frames` is a msgpack array of byte strings. No foreign key: the response's
# row comes last.
event_batches = Table(
    "event_batches",
    metadata,
    Column("response_id", String(36), primary_key=True),
    Column("first_sequence", BigInteger, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("frames", LargeBinary, nullable=False),
    Column("final", Boolean, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index(None, "expires_at"),
)

# Live foreground streams that readers of other processes wait for: until when they do, and until when an owner has
# confirmed that it generates the response, both in milliseconds of the database's own clock.
wanted_streams = Table(
    "wanted_streams",
    metadata,
    Column("response_id", String(36), primary_key=True),
    Column("project_id", Text, primary_key=True),
    Column("wanted_until", BigInteger, nullable=False),
    Column("confirmed_until", BigInteger, nullable=False),
)

# Background runs from acceptance to settlement, which moves them to `responses`. `due_at` is in milliseconds of the
# database's own clock: the end of the owner's lease, in the past if the run is waiting (`owner` null). `fence` grows
# with every change of owner. See `app/jobs/leases.py`.
runs = Table(
    "runs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("previous_id", String(36), index=True),
    Column("created_at", BigInteger, nullable=False),
    Column("lane", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("owner", Text, index=True),
    Column("fence", BigInteger, nullable=False),
    Column("cancelled", Boolean, nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("lenient", Boolean, nullable=False),
    Column("request", LargeBinary, nullable=False),
    Column("seed", LargeBinary, nullable=False),
    Column("progress", LargeBinary),
    Index(None, "lane", "due_at"),
)

# `next_position` is where the next item goes: positions grow, and those of removed items stay empty. `expires_at` null:
# never.
conversations = Table(
    "conversations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, index=True),
    Column("metadata", LargeBinary, nullable=False),
    Column("next_position", BigInteger, nullable=False),
)

# No foreign key: a turn is written together with turns of other conversations, which must not wait for a deletion.
conversation_items = Table(
    "conversation_items",
    metadata,
    Column("conversation_id", Text, primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("project_id", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("item", LargeBinary, nullable=False),
    Column("exchange", LargeBinary),
    Index(None, "conversation_id", "item_id"),
)

# The response that adds the next turn to a conversation. `due_at` is the end of its lease, in milliseconds of the
# database's own clock; a response that has a row in `runs` has the lock until its end.
conversation_locks = Table(
    "conversation_locks",
    metadata,
    Column("conversation_id", Text, primary_key=True),
    Column("response_id", String(36), nullable=False, index=True),
    Column("due_at", BigInteger, nullable=False),
)

# `published` is false from the end of the upload until the content is in place: the row already reserves the content.
files = Table(
    "files",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, index=True),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("digest", Text, nullable=False, index=True),
    Column("published", Boolean, nullable=False),
    Index(None, "project_id", "id"),
)

vector_stores = Table(
    "vector_stores",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("metadata", LargeBinary, nullable=False),
    Column("expires_days", BigInteger),
    Column("last_active_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, index=True),
    Column("deleted_at", BigInteger, index=True),
    Index(None, "project_id", "id"),
)

file_batches = Table(
    "file_batches",
    metadata,
    Column("id", Text, primary_key=True),
    Column("vector_store_id", Text, ForeignKey(vector_stores.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("project_id", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("cancelled", Boolean, nullable=False),
)

# A file in a vector store and its job, which `status` names: in_progress is to be ingested, cancelled is to lose its
# passages, removed is to be deleted. `owner` names a claim, not a process. `due_at` is in milliseconds
# of the database's own clock: the end of the claim's lease, or when the job is due (null: there is none). See
# `app/jobs/leases.py`.
vector_store_files = Table(
    "vector_store_files",
    metadata,
    Column("vector_store_id", Text, ForeignKey(vector_stores.c.id), primary_key=True),
    Column("file_id", Text, primary_key=True, index=True),
    Column("project_id", Text, nullable=False),
    Column("batch_id", Text, index=True),
    Column("created_at", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("attributes", LargeBinary, nullable=False),
    Column("chunk_size", BigInteger, nullable=False),
    Column("chunk_overlap", BigInteger, nullable=False),
    Column("usage_bytes", BigInteger, nullable=False),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("attempts", BigInteger, nullable=False),
    Column("owner", Text),
    Column("due_at", BigInteger, index=True),
)

# SQLite autoincrements only columns of type INTEGER.
_Number = BigInteger().with_variant(Integer(), "sqlite")

# Vector stores that have passages, and the model that produced their vectors.
passage_stores = Table(
    "passage_stores",
    metadata,
    Column("id", _Number, primary_key=True),
    Column("vector_store_id", Text, nullable=False, unique=True),
    Column("model", Text, nullable=False),
    Column("dimensions", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

# One version of a file's passages, which never changes and whose id is never reused: caches rely on this. `state` is
# draft while they are being written, then ready, then gone while they are being deleted.
passage_files = Table(
    "passage_files",
    metadata,
    Column("id", _Number, primary_key=True),
    Column("store_id", _Number, ForeignKey(passage_stores.c.id), nullable=False),
    Column("file_id", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("attributes", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Index(None, "store_id", "file_id"),
    sqlite_autoincrement=True,
)

# `number` is the file's id times 2^24 plus the position. The search tables depend on the engine: see
# `app/db/searching.py`.
passages = Table(
    "passages",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
)
