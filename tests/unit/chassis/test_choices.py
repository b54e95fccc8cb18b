from services.chassis.choices import close_to, told


def test_what_looks_like_the_wanted_comes_first() -> None:
    names = ["flowers", "mnist-2", "mnist", "words"]

    assert told(close_to("mnits", names), names) == "mnist, mnist-2, flowers, words"


def test_of_many_only_the_first_are_named_and_the_rest_counted() -> None:
    names = [f"n{number:02}" for number in range(23)]

    assert told([], names).endswith("n18, n19 and 3 more")


def test_nothing_is_said_to_be_none() -> None:
    assert told(close_to("mnist", []), []) == "none"
