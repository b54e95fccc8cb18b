"""The registry between its neighbours: deletions against deployments, and versions as they were, on the whole platform."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.system.platform import Platform
from trainyard import Model, ModelNotFoundException, TrainyardException, UserErrorException, Webservice, WebserviceException

ROUNDS = 6


def a_model(platform: Platform, folder: Path, name: str, content: str) -> Model:
    """What looks like a SavedModel as long as nobody loads it."""
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "model" / "saved_model.pb").write_text(content)
    return Model.register(platform.workspace, folder / "model", name, show_progress=False)


def trainyard(platform: Platform, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainyard", *words, "--config", str(platform.layout.config)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def outcome(action: object) -> str:
    try:
        action()  # type: ignore[operator]
    except TrainyardException as error:
        return error.code
    return "done"


@pytest.mark.faults
def test_of_a_deletion_and_a_deployment_at_once_never_both_are_done(platform: Platform, tmp_path: Path) -> None:
    found = []
    for number in range(ROUNDS):
        model = a_model(platform, tmp_path, "raced", f"graph {number}")
        together = threading.Barrier(2)

        def deploy(model: Model = model, name: str = f"raced-{number}", together: threading.Barrier = together) -> str:
            together.wait()
            return outcome(lambda: Model.deploy(platform.workspace, name, [model]))

        def delete(model: Model = model, together: threading.Barrier = together) -> str:
            together.wait()
            return outcome(model.delete)

        with ThreadPoolExecutor(2) as pool:
            deployed, deleted = pool.submit(deploy), pool.submit(delete)
            found.append((deployed.result(), deleted.result()))
        if deployed.result() == "done":
            Webservice(platform.workspace, f"raced-{number}").delete()

    assert ("done", "done") not in found, found
    assert {deployed for deployed, _ in found} <= {"done", "ModelLeaving", "ModelNotFound"}, found
    assert {deleted for _, deleted in found} <= {"done", "ModelInUse"}, found
    assert any("done" in pair for pair in found), found


def test_what_an_endpoint_has_stays_until_the_endpoint_is_gone(platform: Platform, tmp_path: Path) -> None:
    model = a_model(platform, tmp_path, "held", "graph")
    service = Model.deploy(platform.workspace, "held-web", [model])

    with pytest.raises(UserErrorException) as caught:
        model.delete()
    service.delete()
    model.delete()

    assert (caught.value.code, "'held-web'" in caught.value.message) == ("ModelInUse", True)
    with pytest.raises(ModelNotFoundException, match="there is:"):
        Model(platform.workspace, "held")
    with pytest.raises(WebserviceException):
        Model.deploy(platform.workspace, "held-again", [model])


def test_a_version_is_shown_as_it_was_by_its_alias_and_its_files_are_gone_with_it(platform: Platform, tmp_path: Path) -> None:
    first = a_model(platform, tmp_path, "aged", "first graph")
    first.set_alias("champion")
    first.add_tags({"state": "fresh"})
    moment = json.loads(trainyard(platform, "model", "history", "aged:1", "--json").stdout)["turns"][-1]["at"]
    second = a_model(platform, tmp_path, "aged", "second graph")
    second.set_alias("champion")
    key = first._message.artifacts.files[0].object_key
    first.delete()

    now = json.loads(trainyard(platform, "model", "show", "aged@champion", "--json").stdout)
    then = json.loads(trainyard(platform, "model", "show", "aged@champion", "--as-of", moment, "--json").stdout)
    turns = [turn["what"] for turn in json.loads(trainyard(platform, "model", "history", "aged:1", "--json").stdout)["turns"]]

    assert (now["id"], then["id"], then["tags"], then["aliases"]) == ("aged:2", "aged:1", {"state": "fresh"}, ["champion"])
    assert turns[:5] == ["ModelVersionRegistered", "AliasMoved", "ModelVersionUpdated", "AliasMoved", "ModelVersionDeleted"]
    platform.until(lambda: not platform.workspace._objects.exists(key), "the files of the deleted version are gone")
    assert [it.version for it in Model.list(platform.workspace, "aged")] == [2]
