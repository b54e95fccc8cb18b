"""Runs with a command in a script's place, and what an agent tells of the environment that it made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.scheduler.domain.validate import submission
from tests.unit.scheduler.story import Story, a_submission, names, some_outputs
from trainyard.cluster.v1 import cluster_pb2 as cluster


def a_command(*words: str) -> Any:
    request = a_submission()
    request.spec.ClearField("entry_script")
    request.spec.command.extend(words)
    return request


def test_a_command_needs_no_script_and_not_even_a_file() -> None:
    request = a_command("python", "-c", "pass")
    request.spec.source.inline.SetInParent()
    request.spec.source.inline.files.clear()

    assert submission(request) is None


def _script(request: Any) -> None:
    request.spec.entry_script = "train.py"


def _argument(request: Any) -> None:
    request.spec.arguments.add(text="--a")


def _words(request: Any) -> None:
    request.spec.command.extend(["x"] * 1000)


def _nul(request: Any) -> None:
    request.spec.command.append("a\0b")


def _empty(request: Any) -> None:
    request.spec.command[0] = ""


@pytest.mark.parametrize("change", [_script, _argument, _words, _nul, _empty])
def test_a_command_that_cannot_be_is_refused(change: Callable[[Any], None]) -> None:
    request = a_command("python")

    change(request)
    failure = submission(request)

    assert failure is not None
    assert (failure.code, failure.target) == ("UserError", "command")


@pytest.mark.parametrize(
    ("field", "value"), [("conda_specification", "x" * 70_000), ("interpreter_path", "a\0b"), ("interpreter_path", "a" * 5000)]
)
def test_an_environment_that_cannot_be_is_refused(field: str, value: str) -> None:
    request = a_submission()
    setattr(request.spec.environment, field, value)

    failure = submission(request)

    assert failure is not None
    assert failure.target == field


def test_what_is_not_as_it_was_asked_for_is_a_warning_of_the_run_once() -> None:
    story = Story().with_run_offered()
    story.report(cluster.LeaseAccepted())

    told = story.report(cluster.TaskPrepared(address="127.0.0.1", warnings=["Python 3.6 was asked for", "six came from the index"]))

    assert [name for name in names(told) if name == "RunWarned"] == ["RunWarned"] * 2
    assert story.run().warnings == ("Python 3.6 was asked for", "six came from the index")


def test_a_command_that_fails_is_named_by_its_program() -> None:
    story = Story().with_pool()
    story.tell(a_command("make", "model"))
    story.with_agent()
    for report in (cluster.LeaseAccepted(), cluster.TaskPrepared(address="127.0.0.1"), cluster.TaskStarted()):
        story.report(report)

    story.report(cluster.TaskExited(exit_code=2, last_lines=["no rule"]))
    (failed,) = story.report(some_outputs())

    assert failed.failure.target == "make"
    assert failed.failure.message.startswith("make (rank 0) exited with code 2: no rule\n")
