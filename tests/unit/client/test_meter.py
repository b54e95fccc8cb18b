import io

import pytest

from trainyard import _meter
from trainyard._meter import Meter


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(_meter, "time", made)
    return made


def test_what_is_done_at_once_is_not_spoken_of(clock: Clock) -> None:
    out = io.StringIO()

    with Meter("uploading", 10, stream=out) as meter:
        meter.add(10)

    assert out.getvalue() == ""


def test_a_long_transfer_tells_how_far_it_is_now_and_then_and_at_its_end(clock: Clock) -> None:
    out = io.StringIO()

    with Meter("uploading", 10_000_000, stream=out) as meter:
        for clock.now in (0.5, 1.5, 2.0, 7.0, 7.1):
            meter.add(2_000_000)

    assert out.getvalue().splitlines() == ["uploading: 4.0 of 10.0 MB", "uploading: 8.0 of 10.0 MB", "uploading: 10.0 of 10.0 MB"]


def test_a_silent_one_and_a_broken_one_end_without_a_word(clock: Clock) -> None:
    silent, broken = io.StringIO(), io.StringIO()

    with Meter("uploading", 10, shown=False, stream=silent) as meter:
        clock.now = 9.0
        meter.add(10)
    with pytest.raises(OSError), Meter("uploading", 10, stream=broken) as meter:
        clock.now = 20.0
        meter.add(5)
        raise OSError

    assert (silent.getvalue(), broken.getvalue()) == ("", "uploading: 0.0 of 0.0 MB\n")
