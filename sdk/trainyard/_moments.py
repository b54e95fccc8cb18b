"""Moments as people write them: an ISO time, a span back from now, a record of the log."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from trainyard._errors import UserErrorException

_AGO = re.compile(r"(\d+)\s*([smhd])\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_PLACE = re.compile(r"([A-Za-z0-9._-]+)/(\d+)@(\d+)\Z")
_TIMES = "an ISO time, or a span like 90s, 30m, 2h, 7d"


def time_of(text: str, named: str) -> datetime:
    """An ISO time, in UTC where it names no zone, or a span back from now; UserErrorException says what `named` takes."""
    if found := _AGO.match(text.strip()):
        try:
            return datetime.now(UTC) - timedelta(**{_UNITS[found[2]]: int(found[1])})
        except (OverflowError, ValueError) as error:
            raise UserErrorException(f"{named}: {text[:100]!r} is too long ago.", target=named) from error
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise UserErrorException(f"{named} is {_TIMES}; not {text[:200]!r}.", target=named) from error
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def as_of(given: Any, named: str = "as_of") -> Any:
    """As history takes it: of a datetime (UTC where it has no zone), such a text, or a record "topic/partition@offset"; None is now."""
    from trainyard.history.v1 import history_pb2 as pb

    if given is None or isinstance(given, pb.AsOf):
        return given
    if not isinstance(given, (str, datetime)):
        raise UserErrorException(f"{named} is a datetime, {_TIMES}, or a record topic/partition@offset; not {given!r}.", target=named)
    if isinstance(given, str) and (found := _PLACE.match(given)):
        # The lengths first: Python makes no number of thousands of digits.
        if len(found[2]) > 10 or len(found[3]) > 19 or int(found[2]) >= 2**31 or int(found[3]) >= 2**63:
            raise UserErrorException(f"{named}: there is no such place as {given[:200]!r}.", target=named)
        return pb.AsOf(place=pb.Place(topic=found[1], partition=int(found[2]), offset=int(found[3])))
    if isinstance(given, str) and "@" in given:
        example = "topic/partition@offset, e.g. trainyard.jobs/3@120"
        raise UserErrorException(f"{named}: a record is named {example}; not {given[:200]!r}.", target=named)
    made = pb.AsOf()
    try:
        when = time_of(given, named) if isinstance(given, str) else given
        made.time.FromDatetime((when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC).replace(tzinfo=None))
    except UserErrorException as error:
        raise UserErrorException(f"{error.message} A record is named topic/partition@offset.", target=named) from error
    except (ValueError, OverflowError) as error:
        raise UserErrorException(f"{named}: {given!r} is no time that history can be asked about.", target=named) from error
    return made
