"""`trainyard model`: what changes of a version, and what it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.unit.client.platform import Platform
from tests.unit.client.test_cli_runs import objects
from trainyard.history.v1 import history_pb2
from trainyard.model.v1 import model_pb2

Cli = Callable[..., Result]


@pytest.fixture(autouse=True)
def two_versions(platform: Platform, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"w")
    for _ in range(2):
        assert cli("model", "register", "digits", "weights", "--tag", "a=b").exit_code == 0


def test_an_alias_is_set_moved_used_and_taken_away(cli: Cli) -> None:
    (first,) = objects(cli("model", "alias", "digits:1", "champion", "--json"))
    cli("model", "alias", "digits:2", "champion")
    (shown,) = objects(cli("model", "show", "digits@champion", "--json"))
    taken = cli("model", "unalias", "digits@champion")

    assert (first["id"], first["aliases"]) == ("digits:1", ["champion"])
    assert (shown["id"], taken.exit_code) == ("digits:2", 0)
    assert cli("model", "show", "digits@champion").exit_code == 3
    assert [cli("model", "unalias", name).exit_code for name in ("digits", "digits@", "@champion")] == [2, 2, 2]


def test_what_is_said_of_a_version_is_changed(platform: Platform, cli: Cli) -> None:
    (changed,) = objects(
        cli("model", "update", "digits", "--tag", "c=d", "--remove-tag", "a", "--property", "p=1", "--description", "", "--json")
    )
    (staged,) = objects(cli("model", "stage", "digits:1", "production", "--json"))

    request = platform.last(model_pb2.UpdateModelVersion)
    assert (changed["tags"], request.version, request.HasField("description")) == ({"c": "d"}, 2, True)
    assert staged["stage"] == "Production"
    assert [it["id"] for it in objects(cli("model", "list", "--versions", "--stage", "Production", "--json"))] == ["digits:1"]
    assert cli("model", "stage", "digits", "best").exit_code == 2


def test_a_deletion_names_its_version_and_is_asked_about(platform: Platform, cli: Cli) -> None:
    assert cli("model", "delete", "digits", "--yes").exit_code == 2
    assert cli("model", "delete", "digits:1").exit_code == 2

    (done,) = objects(cli("model", "delete", "digits:1", "--with-aliases", "--yes", "--json"))

    assert done == {"id": "digits:1", "deleted": True}
    assert platform.last(model_pb2.DeleteModelVersion).with_aliases


def test_a_version_is_shown_as_it_was_and_with_what_became_of_it(platform: Platform, cli: Cli) -> None:
    (then,) = objects(cli("model", "show", "digits:1", "--as-of", "1h", "--json"))
    request = platform.last(history_pb2.GetModelRequest)
    (told,) = objects(cli("model", "history", "digits@champion", "--json"))
    lines = cli("model", "history", "digits:1").stdout.splitlines()

    assert (then["id"], request.HasField("as_of")) == ("digits:1", True)
    assert platform.last(history_pb2.GetModelRequest).model == history_pb2.ModelRef(model="digits", version=1)
    assert (told["turns"][0]["what"], told["services"][0]["endpoint"]) == ("StageChanged", "web")
    assert [line.split("\t")[1:] for line in lines] == [["StageChanged", "Production"], ["answered at web", "until now"]]


def test_signatures_are_shown_a_line_a_tensor(platform: Platform, cli: Cli) -> None:
    x = model_pb2.TensorSpec(name="x", type="float32", shape=[-1, 784])
    y = model_pb2.TensorSpec(name="y", type="string", any_rank=True)
    n = model_pb2.TensorSpec(name="n", type="int64")
    platform.models["digits"][1].signatures.add(name="serving_default", method="predict", inputs=[x, n], outputs=[y])

    lines = cli("model", "show", "digits").stdout.splitlines()

    assert lines[-4:] == ["signature serving_default (predict)", "  in  x: float32[?, 784]", "  in  n: int64", "  out y: string[...]"]
