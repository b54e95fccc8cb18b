"""What has failed is left alone, twice as long each time."""

from __future__ import annotations

from services.scheduler.adapters.pauses import Pauses


def test_each_failure_in_a_row_doubles_the_pause_up_to_the_longest() -> None:
    now = 0.0
    pauses = Pauses(first_seconds=2, longest_seconds=5, clock=lambda: now)

    lasted = []
    for _ in range(4):
        pauses.failed("host", "refused")
        began = now
        while pauses.pausing("host") == "refused":
            now += 1
        lasted.append(now - began)

    assert lasted == [2, 4, 5, 5]


def test_what_was_fine_again_begins_anew_and_others_are_not_concerned() -> None:
    now = 0.0
    pauses = Pauses(first_seconds=2, clock=lambda: now)
    pauses.failed("host", "refused")
    pauses.failed("host", "refused")

    pauses.fine("host")
    first = pauses.pausing("host")
    pauses.failed("host", "again")
    now = 2.0

    assert (first, pauses.pausing("host"), pauses.pausing("other")) == ("", "", "")
