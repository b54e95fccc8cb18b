"""All tables of history as text: two databases that say the same give the same bytes."""

from __future__ import annotations

import sqlalchemy as sa

from services.history.databases import Database
from services.history.tables import schema


def dump(database: Database) -> str:
    lines = []
    with database.reading() as connection:
        for table in schema.sorted_tables:
            rows = connection.execute(sa.select(table)).all()
            lines.append(f"== {table.name}")
            lines += sorted(repr(tuple(bytes(it) if isinstance(it, memoryview) else it for it in row)) for row in rows)
    return "\n".join(lines)
