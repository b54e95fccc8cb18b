"""Looks into the tables: a model version and an endpoint, as they stood at any moment."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from services.history import asking
from services.history.domain import endpoints, models
from services.history.domain.moment import Moment
from services.history.projecting import facts_by_name
from services.history.reading import clean
from services.history.tables import edges, endpoint_facts, model_facts, nodes, up_to
from trainyard.history.v1.history_pb2 import GetEndpointResponse, GetModelResponse, ListEndpointsResponse, ListModelsResponse, ModelRef

_MOST_ENDPOINTS = 10_000


def model_view(connection: sa.Connection, asked: ModelRef, moment: Moment | None) -> GetModelResponse | None:
    """None where there is no such version or alias."""
    told = models.tell(facts_by_name(connection, model_facts, asked.model, moment))
    number = told.number_of(asked)
    if number is None:
        return None
    view = GetModelResponse(version=told.shown(number), turns=told.turns_of(number))
    query = (
        sa.select(nodes.c.name)
        .join(edges, edges.c.target == nodes.c.id)
        .where(edges.c.source == f"model:{asked.model}:{number}", edges.c.how == "deployed", up_to(edges, moment))
        .distinct()
    )
    found = []
    for name in connection.execute(query).scalars().all():
        services = endpoints.tell(facts_by_name(connection, endpoint_facts, name, moment)).services
        found += [it for it in services if any((ref.model, ref.version) == (asked.model, number) for ref in it.models)]
    view.services.extend(sorted(found, key=lambda it: getattr(it, "from").ToMilliseconds())[-models.MOST :])
    return view


def models_view(
    connection: sa.Connection, name: str, moment: Moment | None, after: list[Any] | None, *, newest_only: bool
) -> ListModelsResponse:
    """Versions that were there, by model, newest first; those after (model, version), as many as a message holds."""
    query = sa.select(model_facts.c.name).where(up_to(model_facts, moment)).distinct().order_by(model_facts.c.name)
    if name:
        query = query.where(model_facts.c.name == name)
    if after is not None:
        query = query.where(model_facts.c.name >= clean(after[0]))
    view, room = ListModelsResponse(), asking.PAGE_BYTES
    for model in connection.execute(query).scalars().all():
        told = models.tell(facts_by_name(connection, model_facts, model, moment))
        there = sorted((number for number, version in told.versions.items() if not version.HasField("deleted_at")), reverse=True)
        for number in there[:1] if newest_only else there:
            if after is not None and model == after[0] and number >= after[1]:
                continue
            version = told.shown(number)
            room -= version.ByteSize()
            if view.versions and (room < 0 or len(view.versions) == models.MOST):
                view.next_page_token = asking.token(view.versions[-1].model, view.versions[-1].version)
                return view
            view.versions.append(version)
    return view


def model_number(connection: sa.Connection, asked: ModelRef, moment: Moment | None) -> int | None:
    return models.tell(facts_by_name(connection, model_facts, asked.model, moment)).number_of(asked)


def endpoint_view(connection: sa.Connection, name: str, moment: Moment | None) -> GetEndpointResponse | None:
    """None where there never was one."""
    told = endpoints.tell(facts_by_name(connection, endpoint_facts, name, moment))
    if not told.turns:
        return None
    return GetEndpointResponse(services=told.services[-models.MOST :], turns=told.turns[-models.MOST :])


def endpoints_view(connection: sa.Connection, moment: Moment | None) -> ListEndpointsResponse:
    """Those that were there, by name."""
    query = sa.select(endpoint_facts.c.name).where(up_to(endpoint_facts, moment)).distinct().order_by(endpoint_facts.c.name)
    view = ListEndpointsResponse()
    for name in connection.execute(query).scalars():
        told = endpoints.tell(facts_by_name(connection, endpoint_facts, name, moment))
        if told.turns and not told.deleted:
            view.endpoints.add(name=name, last=told.turns[-1], services=told.going_on)
        if len(view.endpoints) == _MOST_ENDPOINTS:
            break
    return view


def names_in(connection: sa.Connection, kind: str) -> list[str]:
    """A few of the models or endpoints that there ever were, for a message that says what there is."""
    query = sa.select(nodes.c.name).where(nodes.c.kind == kind).distinct().order_by(nodes.c.name).limit(20)
    return list(connection.execute(query).scalars())
