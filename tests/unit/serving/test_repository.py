"""All models of a process, with a loader that loads nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from services.serving.model_server.errors import (
    FAILED_PRECONDITION,
    INVALID_ARGUMENT,
    NOT_FOUND,
    PERMISSION_DENIED,
    UNAVAILABLE,
    UNKNOWN,
    ServeError,
)
from services.serving.model_server.repository import Repository
from services.serving.model_server.servable import Servable
from services.serving.model_server.served import State
from services.serving.model_server.signatures import Signature
from services.serving.model_server.slots import Habits
from services.serving.model_server.versions import All, Labels, Latest, ModelConfig, Specific


class Loaded(Servable):
    platform = "tensorflow_savedmodel"

    def __init__(self, name: str, version: int, closed: Callable[[str], None]) -> None:
        super().__init__(name, version, {})
        self._closed = closed

    def run(self, signature: Signature, wanted: tuple[str, ...], arrays: Sequence[Any]) -> list[Any]:
        return list(arrays)

    def signature_defs(self) -> Mapping[str, bytes]:
        return {}

    def close(self) -> None:
        self._closed(f"{self.name} {self.version}")


class World:
    """Folders, a loader that can be made to fail or to wait, and the repository that is looked at."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.closed: list[str] = []
        self.attempts: list[str] = []
        self.broken: set[str] = set()
        self.held: set[str] = set()
        self._released = threading.Condition()
        self.repository = Repository(self.load, Habits(poll_seconds=0.01, retries=1, retry_seconds=0.01))

    def load(self, config: ModelConfig, version: int, path: str) -> Loaded:
        what = f"{config.name} {version}"
        self.attempts.append(what)
        with self._released:
            self._released.wait_for(lambda: what not in self.held, 30)
        if what in self.broken:
            raise ValueError(f"{what} is broken")
        return Loaded(config.name, version, self.closed.append)

    def release(self, what: str) -> None:
        with self._released:
            self.held.discard(what)
            self._released.notify_all()

    def put(self, model: str, *versions: int) -> None:
        for version in versions:
            (self.root / model / str(version)).mkdir(parents=True, exist_ok=True)

    def remove(self, model: str, version: int) -> None:
        (self.root / model / str(version)).rmdir()

    def config(self, model: str, **more: Any) -> ModelConfig:
        return ModelConfig(model, str(self.root / model), **more)

    def start(self, *configs: ModelConfig) -> Repository:
        self.repository.start(configs)
        self.repository.wait()
        return self.repository

    def states(self, model: str) -> dict[int, State]:
        return {it.version: it.state for it in self.repository.versions(model)}

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "it did not come about within 30 s"
            time.sleep(0.002)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.repository.stop()


def which(repository: Repository, name: str, version: int | None = None, label: str = "") -> int:
    with repository.borrow(name, version, label) as served:
        return served.version


def refused(repository: Repository, name: str, version: int | None = None, label: str = "") -> tuple[int, str]:
    with pytest.raises(ServeError) as caught:
        which(repository, name, version, label)
    return caught.value.code, caught.value.message


def test_the_newest_is_meant_where_no_version_is_named(world: World) -> None:
    world.put("a", 1, 2, 10)

    repository = world.start(world.config("a", policy=All()))
    world.until(lambda: set(world.states("a").values()) == {State.AVAILABLE})

    assert which(repository, "a") == 10
    assert which(repository, "a", 1) == 1
    assert [it.version for it in repository.versions("a")] == [10, 2, 1]
    assert refused(repository, "a", 3) == (NOT_FOUND, "Servable not found for request: Specific(a, 3)")
    assert refused(repository, "b") == (NOT_FOUND, "Servable not found for request: Latest(b)")
    assert refused(repository, "") == (INVALID_ARGUMENT, "ModelSpec has no name specified.")


def test_a_version_that_comes_replaces_the_old_one_after_it_answers(world: World) -> None:
    world.put("a", 1)
    repository = world.start(world.config("a"))
    world.held.add("a 2")

    world.put("a", 2)
    world.until(lambda: "a 2" in world.attempts)
    assert which(repository, "a") == 1
    assert world.states("a") == {2: State.LOADING, 1: State.AVAILABLE}
    world.release("a 2")
    world.until(lambda: world.closed == ["a 1"])

    assert which(repository, "a") == 2
    assert world.states("a") == {2: State.AVAILABLE, 1: State.END}


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_up(world: World) -> None:
    world.put("a", 1)
    repository = world.start(world.config("a"))
    world.broken.add("a 2")

    world.put("a", 2)
    world.until(lambda: world.states("a").get(2) is State.END)

    assert which(repository, "a") == 1
    assert world.attempts == ["a 1", "a 2", "a 2"]
    (told, _) = repository.versions("a")
    assert (told.code, "a 2 is broken" in told.message) == (UNKNOWN, True)
    assert repository.is_ready()


def test_going_back_is_taking_the_newest_away(world: World) -> None:
    world.put("a", 1, 2)
    repository = world.start(world.config("a"))

    world.remove("a", 2)
    world.until(lambda: world.closed == ["a 2"])

    assert which(repository, "a") == 1


def test_what_is_lent_is_not_closed_before_it_was_given_back(world: World) -> None:
    world.put("a", 1)
    repository = world.start(world.config("a"))

    with repository.borrow("a") as served:
        world.put("a", 2)
        world.until(lambda: world.states("a").get(1) is State.UNLOADING)
        assert (served.version, world.closed) == (1, [])
        assert which(repository, "a") == 2
        assert refused(repository, "a", 1)[0] == NOT_FOUND

    world.until(lambda: world.closed == ["a 1"])


def test_a_folder_that_cannot_be_read_unloads_nothing(world: World) -> None:
    world.put("a", 1)
    repository = world.start(world.config("a"))

    (world.root / "a").rename(world.root / "elsewhere")
    world.put("b", 1)
    repository.reload([world.config("a"), world.config("b")])  # looks at both

    assert which(repository, "a") == which(repository, "b") == 1


def test_a_newcomer_that_is_still_written_is_waited_for(world: World) -> None:
    world.put("a", 1)
    world.start(world.config("a"))
    file = world.root / "a" / "2" / "variables"
    writing, done = threading.Event(), threading.Event()

    def write() -> None:
        while not done.is_set():
            with file.open("ab") as stream:
                stream.write(b"x")
            writing.set()

    world.put("a", 2)
    thread = threading.Thread(target=write)
    thread.start()
    writing.wait(30)
    seen = len(world.attempts)
    done.set()
    thread.join()
    world.until(lambda: "a 2" in world.attempts)

    assert seen == 1


def test_what_is_loaded_stays_while_the_files_of_its_only_successor_still_come(world: World) -> None:
    listing: dict[int, tuple[str, Any]] = {1: ("1", ())}
    repository = Repository(world.load, Habits(poll_seconds=0), lambda config: dict(listing))
    repository.start([world.config("a")])
    repository.wait()

    meanwhile = []
    for size in (1, 2, 2):
        listing.clear()
        listing[2] = "2", (("file", size, 0),)
        meanwhile.append((which(repository, "a"), list(world.closed)))
        repository._look(["a"], hasty=False)
    world.until(lambda: world.closed == ["a 1"])

    assert meanwhile == [(1, []), (1, []), (1, [])]
    assert which(repository, "a") == 2
    repository.stop()


def test_a_model_that_cannot_be_loaded_at_the_start_is_told(world: World) -> None:
    world.put("a", 1)
    world.broken.add("a 1")

    with pytest.raises(ServeError, match="a 1 is broken"):
        world.start(world.config("a"))
    assert not world.repository.is_ready()


def test_the_list_of_models_is_changed_as_a_whole(world: World) -> None:
    for name in ("a", "b", "c"):
        world.put(name, 1)
    repository = world.start(world.config("a"), world.config("b"))

    repository.reload([world.config("b"), world.config("c")])
    world.until(lambda: world.closed == ["a 1"])

    assert repository.names() == ["b", "c"]
    assert which(repository, "c") == 1
    assert refused(repository, "a")[0] == NOT_FOUND
    assert world.attempts == ["a 1", "b 1", "c 1"] or world.attempts == ["b 1", "a 1", "c 1"]


def test_a_new_model_that_never_answers_is_told_and_the_others_stay(world: World) -> None:
    world.put("a", 1)
    repository = world.start(world.config("a"))

    with pytest.raises(ServeError, match=r"1 model\(s\) did not become available.*no versions of b|cannot look for versions of b"):
        repository.reload([world.config("a"), world.config("b")])

    assert which(repository, "a") == 1


def test_labels_are_names_for_versions(world: World) -> None:
    world.put("a", 1, 2)
    repository = world.start(world.config("a", policy=All(), labels={}))
    world.until(lambda: world.states("a") == {1: State.AVAILABLE, 2: State.AVAILABLE})

    repository.reload([world.config("a", policy=All(), labels={"stable": 1, "canary": 2})])

    assert (which(repository, "a", label="stable"), which(repository, "a", label="canary")) == (1, 2)
    assert repository.version_of("a", "stable") == 1
    assert refused(repository, "a", label="nope") == (INVALID_ARGUMENT, "Unrecognized servable version label: nope")
    with pytest.raises(ServeError) as caught:
        repository.reload([world.config("a", policy=All(), labels={"stable": 3})])
    assert caught.value.code == FAILED_PRECONDITION
    assert which(repository, "a", label="stable") == 1


def test_a_label_may_point_at_a_version_that_is_loaded_at_the_start(world: World) -> None:
    """TensorFlow Serving refuses this, and its process ends again and again."""
    world.put("a", 1)
    world.held.add("a 1")
    world.repository.start([world.config("a", labels={"stable": 1})])

    assert refused(world.repository, "a", label="stable")[0] == UNAVAILABLE
    world.release("a 1")
    world.repository.wait()

    assert which(world.repository, "a", label="stable") == 1


def test_a_label_may_wait_for_its_version_where_that_is_allowed(world: World) -> None:
    world.put("a", 1)
    world.repository = Repository(world.load, Habits(poll_seconds=0, labels=Labels.NEW))
    repository = world.start(world.config("a", policy=Specific(frozenset({1, 2})), labels={"next": 2}))

    assert refused(repository, "a", label="next")[0] == NOT_FOUND
    world.put("a", 2)
    repository.load("a")
    world.until(lambda: world.states("a").get(2) is State.AVAILABLE)

    assert which(repository, "a", label="next") == 2


def test_a_model_is_unloaded_and_loaded_on_request(world: World) -> None:
    world.put("a", 1)
    repository = world.start(world.config("a"))

    repository.unload("a")
    world.until(lambda: world.closed == ["a 1"])
    assert refused(repository, "a")[0] == NOT_FOUND
    repository.load("a")

    assert which(repository, "a") == 1
    assert world.attempts == ["a 1", "a 1"]
    with pytest.raises(ServeError, match="model b is not in the list of models, which has a"):
        repository.load("b")


def test_loading_on_request_tries_again_and_says_why_it_failed(world: World) -> None:
    world.put("a", 1)
    repository = world.start(world.config("a"))
    world.put("a", 2)
    world.broken.add("a 2")
    world.until(lambda: world.states("a").get(2) is State.END)

    with pytest.raises(ServeError, match="a 2 is broken"):
        repository.load("a")
    world.broken.clear()
    repository.load("a")
    world.until(lambda: world.states("a").get(2) is State.AVAILABLE)

    assert which(repository, "a") == 2


def patient_after_a_failure(world: World) -> Repository:
    """The next attempt would come after an hour."""
    world.repository = Repository(world.load, Habits(poll_seconds=0, retries=5, retry_seconds=3600))
    world.put("a", 1)
    return world.start(world.config("a"))


def test_who_asks_for_a_broken_model_waits_for_one_attempt_and_the_next_is_made_when_somebody_asks_again(world: World) -> None:
    repository = patient_after_a_failure(world)
    world.put("a", 2)
    world.broken.add("a 2")

    for _ in range(2):
        with pytest.raises(ServeError, match="a 2 is broken"):
            repository.load("a")
    world.broken.clear()
    repository.load("a")

    assert world.attempts == ["a 1", "a 2", "a 2", "a 2"]
    assert which(repository, "a") == 2


def test_a_list_with_a_broken_model_is_answered_after_one_attempt(world: World) -> None:
    repository = patient_after_a_failure(world)
    world.put("b", 1)
    world.broken.add("b 1")

    with pytest.raises(ServeError, match=r"1 model\(s\) did not become available.*b 1 is broken"):
        repository.reload([world.config("a"), world.config("b")])

    assert which(repository, "a") == 1


def test_a_change_of_the_list_waits_no_longer_for_another_one_than_its_caller(world: World) -> None:
    repository = patient_after_a_failure(world)
    world.put("b", 1)
    world.held.add("b 1")
    first = threading.Thread(target=repository.reload, args=([world.config("a"), world.config("b")],))
    first.start()
    world.until(lambda: "b 1" in world.attempts)

    with pytest.raises(ServeError, match="another change of the list of models is under way") as caught:
        repository.reload([world.config("a")], time.monotonic())
    world.release("b 1")
    first.join()

    assert caught.value.code == UNAVAILABLE
    assert which(repository, "b") == 1


def test_calls_under_way_are_those_that_have_a_version(world: World) -> None:
    world.put("a", 1)
    repository = world.start(world.config("a"))

    with repository.borrow("a"), repository.borrow("a"):
        during = repository.under_way()

    assert (during, repository.under_way()) == (2, 0)


def test_under_calls_from_all_sides_no_version_is_closed_while_it_is_lent(world: World) -> None:
    world.put("a", 1)
    repository = world.start(world.config("a", policy=Latest()))
    done, wrong = threading.Event(), list[str]()

    def call() -> None:
        while not done.is_set():
            with repository.borrow("a") as served:
                if f"a {served.version}" in world.closed:
                    wrong.append(f"{served.version} was closed")

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for version in range(2, 8):
        world.put("a", version)
        world.until(lambda version=version: f"a {version - 1}" in world.closed)  # type: ignore[misc]
    done.set()
    for caller in callers:
        caller.join()

    assert wrong == []
    assert world.closed == [f"a {version}" for version in range(1, 7)]


def test_what_was_deployed_is_changed_by_no_caller(world: World) -> None:
    world.put("a", 1)
    world.put("b", 1)
    fixed = Repository(world.load, Habits(poll_seconds=0, managed=False))
    fixed.start([world.config("a")])
    fixed.wait()

    for change in (lambda: fixed.unload("a"), lambda: fixed.load("a"), lambda: fixed.reload([world.config("b")])):
        with pytest.raises(ServeError, match=r"change that by Webservice\.update") as caught:
            change()
        assert caught.value.code == PERMISSION_DENIED

    assert which(fixed, "a") == 1
    fixed.stop()
