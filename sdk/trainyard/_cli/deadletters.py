"""`trainyard deadletters`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from trainyard._cli.common import All, Config, Json, Limit, Since, Token, moment, new_group, page_of, workspace, wrong
from trainyard._cli.output import iso, one, rows
from trainyard._errors import PlatformUnavailableException, TrainyardException
from trainyard._times import as_utc

group = new_group("Messages that no service could take.")
TOPIC = "trainyard.deadletters"
_CUT_BYTES = 512 << 10
_SHOWN_BYTES = 256
Number = Annotated[int, typer.Argument(min=0, help="its number in `deadletters list`")]


@group.command("list")
def deadletters_list(
    service: Annotated[str, typer.Option(help="only those that this service refused")] = "",
    topic: Annotated[str, typer.Option(help="only from this topic")] = "",
    since: Since = "",
    limit: Limit = 100,
    page_token: Token = "",
    everything: All = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Oldest first, each under its number."""
    earliest = moment(since, "--since") if since else None
    kept = [
        _row(number, letter)
        for number, letter in _letters(config)
        if service in ("", letter.service) and topic in ("", letter.topic) and (earliest is None or as_utc(letter.refused_at) >= earliest)
    ]
    page = page_of(kept, lambda row: str(row["number"]), limit=limit, token=page_token, everything=everything)
    rows(page, ("number", "refusedAt", "from", "service", "error"), as_json=as_json)


@group.command("show")
def deadletters_show(number: Number, as_json: Json = False, config: Config = None) -> None:
    """One of them, whole; of its value the first bytes, in --json all of them in hexadecimal."""
    letter = _letter(config, number)
    value = letter.value.hex() if as_json else f"{len(letter.value)} bytes: {letter.value[:_SHOWN_BYTES]!r}"
    one(
        {
            **_row(number, letter),
            "key": letter.key.decode("utf-8", "backslashreplace"),
            "headers": {header.name: header.value.decode("utf-8", "backslashreplace") for header in letter.headers},
            "value": value,
            "stack": letter.stack if as_json else letter.stack.split("\n") if letter.stack else None,
        },
        as_json=as_json,
    )


@group.command("replay")
def deadletters_replay(number: Number, as_json: Json = False, config: Config = None) -> None:
    """Publish it once more as it came: same topic, key, headers and value."""
    from kafka import KafkaProducer
    from kafka.errors import KafkaError

    letter = _letter(config, number)
    if len(letter.value) >= _CUT_BYTES:
        raise wrong(f"Dead letter {number} was cut to 512 KiB; it cannot be replayed.", str(number))
    bootstrap = workspace(config)._events.bootstrap
    try:
        producer = KafkaProducer(bootstrap_servers=bootstrap)
        try:
            headers = [(header.name, header.value) for header in letter.headers]
            placed = producer.send(letter.topic, key=letter.key or None, value=letter.value, headers=headers).get(timeout=30)
        finally:
            producer.close()
    except KafkaError as error:
        raise PlatformUnavailableException(f"Kafka at {bootstrap} did not take it: {error}", target=bootstrap) from error
    one({"topic": letter.topic, "partition": placed.partition, "offset": placed.offset}, as_json=as_json)


def _row(number: int, letter: Any) -> dict[str, Any]:
    return {
        "number": number,
        "from": f"{letter.topic}/{letter.partition}@{letter.offset}",
        "service": letter.service,
        "error": letter.error,
        "refusedAt": iso(letter.refused_at),
    }


def _letters(config: str | None) -> Iterator[tuple[int, Any]]:
    from trainyard.event.v1.dead_letter_pb2 import DeadLetter

    for record in workspace(config)._events.read_all([TOPIC]):
        if record.event is not None and isinstance(record.event.message, DeadLetter):
            yield record.offset, record.event.message


def _letter(config: str | None, number: int) -> Any:
    for found, letter in _letters(config):
        if found == number:
            return letter
    raise TrainyardException(
        f"There is no dead letter {number}.", code="DeadLetterNotFound", target=str(number), hint="trainyard deadletters list"
    )
