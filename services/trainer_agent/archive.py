"""An attempt's metrics as they were sent, in a file: what is left of them once the topic has let them go."""

from __future__ import annotations

import time
from pathlib import Path
from typing import BinaryIO

from services.chassis.records import NewRecord
from trainyard.history.v1.archive_pb2 import ArchivedBatch, MetricArchive


class MetricsFile:
    """Written record by record: messages of one type that follow each other are one message of that type."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trouble = ""
        """Why records are missing; "" if none is."""
        self._file: BinaryIO | None = None
        self._closed = False

    def add(self, record: NewRecord) -> None:
        """Never raises: a full disk costs the archive, and not the run. After `close` it is too late, and nothing is kept."""
        if self.trouble or self._closed:
            return
        one = ArchivedBatch(event_id=dict(record.headers)["ce_id"].decode(), at_ms=int(time.time() * 1000), value=record.value or b"")
        try:
            self._file = self._file or self.path.open("ab")
            self._file.write(MetricArchive(batches=[one]).SerializeToString())
        except OSError as error:
            self.trouble = f"the metrics are not archived: {error.strerror}"

    def close(self) -> bool:
        """Whether there is a file to keep."""
        self._closed = True
        if self._file is None:
            return False
        try:
            self._file.close()
        except OSError as error:
            self.trouble = f"the metrics are not archived: {error.strerror}"
        return not self.trouble
