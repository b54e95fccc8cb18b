"""The log as a bare client sees it: publish anything, read everything."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from google.protobuf.message import Message

from services.chassis.loop.kafka_client import KafkaPublisher, KafkaReader
from services.chassis.records import NewRecord, Place, Record
from trainyard._cloudevents import Outgoing, Received, Undecodable, decode
from trainyard._kafka import partition_of


class TopicLog:
    def __init__(self, bootstrap: str) -> None:
        self._reader = KafkaReader(bootstrap)
        self._publisher = KafkaPublisher(bootstrap)

    def publish(self, topic: str, key: str, *messages: Message) -> list[str]:
        """Each as an event of its own; returns their ids."""
        events = [Outgoing(topic, key, message, str(uuid.uuid4()), "a test", datetime.now(UTC)) for message in messages]
        self.publish_raw([NewRecord(topic, key.encode(), event.value(), tuple(event.headers())) for event in events])
        return [event.event_id for event in events]

    def publish_raw(self, records: Sequence[NewRecord]) -> list[tuple[Place, int]]:
        return self._publisher.publish(records)

    def next_in(self, topic: str, key: str) -> Callable[[], Record]:
        """Waits, once called, for the first record that comes into the key's partition from now on."""
        ends = self._reader.ends([topic])
        place = Place(topic, partition_of(key, len(ends)))

        def wait() -> Record:
            (record,) = self._reader.read(place, ends[place], ends[place] + 1)
            return record

        return wait

    def events(self, topic: str) -> list[Received]:
        """All that lies in the topic now and can be read, each event once however often it was sent."""
        found: dict[str, Received] = {}
        for place, end in self._reader.ends([topic]).items():
            for record in self._reader.read(place, 0, end):
                try:
                    event = decode(record.topic, record.partition, record.offset, record.key, record.value, record.headers)
                except Undecodable:
                    continue
                found.setdefault(event.event_id, event)
        return list(found.values())

    def close(self) -> None:
        self._reader.close()
        self._publisher.close()
