"""Looks into the tables: a pool, all of them, and the policy of the queue, as they stood at any moment."""

from __future__ import annotations

import sqlalchemy as sa

from services.history.domain import pools
from services.history.domain.moment import Moment
from services.history.projecting import facts_by_name
from services.history.tables import pool_facts as pool_table
from services.history.tables import up_to
from trainyard.history.v1.history_pb2 import GetPolicyResponse, GetPoolResponse, ListPoolsResponse

_MOST_POOLS = 10_000


def pool_view(connection: sa.Connection, name: str, moment: Moment | None) -> GetPoolResponse | None:
    return pools.tell_pool(facts_by_name(connection, pool_table, name, moment))


def pools_view(connection: sa.Connection, moment: Moment | None) -> ListPoolsResponse:
    """Those that were there, by name."""
    query = sa.select(pool_table.c.name).where(up_to(pool_table, moment)).distinct().order_by(pool_table.c.name)
    view = ListPoolsResponse()
    for name in connection.execute(query).scalars():
        found = pool_view(connection, name, moment)
        if found is not None and not found.deleted:
            found.ClearField("turns")
            view.pools.append(found)
        if len(view.pools) == _MOST_POOLS:
            break
    return view


def policy_view(connection: sa.Connection, moment: Moment | None) -> GetPolicyResponse:
    return pools.tell_policy(facts_by_name(connection, pool_table, pools.POLICY, moment))


def pool_names(connection: sa.Connection) -> list[str]:
    """All that there ever were, for a message that says what there is."""
    query = sa.select(pool_table.c.name).where(pool_table.c.name != pools.POLICY).distinct().order_by(pool_table.c.name).limit(20)
    return list(connection.execute(query).scalars())
