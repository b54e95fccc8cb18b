import pytest

from services.chassis import choices
from services.chassis.choices import close_to, told


def test_what_looks_like_the_wanted_comes_first() -> None:
    names = ["flowers", "mnist-2", "mnist", "words"]

    assert told(close_to("mnits", names), names) == "mnist, mnist-2, flowers, words"


def test_of_many_only_the_first_are_named_and_the_rest_counted() -> None:
    names = [f"n{number:02}" for number in range(23)]

    assert told([], names).endswith("n18, n19 and 3 more")


def test_nothing_is_said_to_be_none() -> None:
    assert told(close_to("mnist", []), []) == "none"


@pytest.mark.security
def test_many_long_names_are_not_all_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    monkeypatch.setattr(
        choices, "get_close_matches", lambda wanted, names, n: compared.extend(len(wanted) * len(name) for name in names) or []
    )

    close_to("ab" * 5000, ["ab" * 99 + str(number) for number in range(10_000)])

    assert len(compared) >= 50 and sum(compared) <= 4_000_000
