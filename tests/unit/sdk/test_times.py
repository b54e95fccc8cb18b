"""Times of messages as a client shows them, forged ones too."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from trainyard._details import details
from trainyard._times import as_utc, order
from trainyard.history.v1.history_pb2 import RunView
from trainyard.job.v1 import job_pb2 as job

pytestmark = pytest.mark.security


@pytest.mark.parametrize(
    ("seconds", "nanos", "year"), [(2**62, 2**31 - 1, 9999), (-(2**62), -(2**31), 1), (0, -5, 1970), (2**63 - 1, 0, 9999)]
)
def test_a_time_beyond_all_years_is_shown_as_the_first_or_the_last(seconds: int, nanos: int, year: int) -> None:
    stamp = Timestamp(seconds=seconds, nanos=nanos)

    shown = details(RunView(run=job.Run(run_id="r", status=job.RUN_STATUS_RUNNING, started_at=stamp)), {})

    assert as_utc(stamp).year == year
    assert str(shown["startTimeUtc"]).startswith(f"{year:04d}-")


def test_other_times_are_what_they_say_and_sort_by_it() -> None:
    stamp = Timestamp()
    stamp.FromDatetime(datetime(2024, 5, 6, 7, 8, 9, 123456))

    assert as_utc(stamp) == datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    assert order(stamp) > order(SimpleNamespace(seconds=stamp.seconds, nanos=0))
