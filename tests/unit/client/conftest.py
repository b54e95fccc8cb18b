import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.unit.client.platform import Platform, running
from trainyard import Workspace
from trainyard._cli import app


@pytest.fixture
def platform() -> Iterator[Platform]:
    with running() as found:
        yield found


@pytest.fixture
def cli(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command as in a pipe: cli("run", "list") -> exit_code, stdout, stderr."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(platform.config()))
    config.chmod(0o600)
    monkeypatch.setenv("TRAINYARD_CONFIG", str(config))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Workspace, "_objects", platform.objects)

    def call(*words: str, given: str | None = None) -> Result:
        return CliRunner().invoke(app, list(words), input=given)

    return call
