"""RunDetails in a real Jupyter kernel, and what a real browser makes of it (where chromium is installed; `apt-get install chromium` on Debian)."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

import grpc
import pytest
from uv import find_uv_bin

from tests.unit.client.platform import Platform, running
from tests.unit.client.test_cli_runs import add_run
from tests.unit.client.test_widget import HOSTILE, logged
from trainyard._widget import _SCRIPT
from trainyard._widget_data import Snapshot
from trainyard._widget_html import as_html
from trainyard.history.v1 import history_pb2
from trainyard.job.v1 import job_pb2

REPO = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.component, pytest.mark.timeout(300)]
# A look from time to time is put off for an hour: what is drawn within the test was pushed.
CELL = """
import trainyard._widget as widget
widget._LOOK_SECONDS = 3600.0
{before}
from trainyard import Experiment, Run, RunDetails, Workspace
run = Run(Experiment(Workspace.from_config({config!r}), "exp"), "exp_1")
details = RunDetails(run)
details.show()
"""
Message = dict[str, Any]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the client, its extra `widgets` and a kernel."""
    home = tmp_path_factory.mktemp("notebook") / "venv"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    packages = [f"{REPO / 'sdk'}[widgets]", "ipykernel", "jupyter_client"]
    for words in (["venv", "--python", "3.11", str(home)], ["pip", "install", "--python", str(home / "bin" / "python"), *packages]):
        result = subprocess.run([find_uv_bin(), *words], capture_output=True, text=True, env=environment, check=False)
        assert result.returncode == 0, result.stderr
    return home / "bin" / "python"


@pytest.fixture
def platform() -> Iterator[Platform]:
    with running() as found:
        view = add_run(found, "exp_1", job_pb2.RUN_STATUS_RUNNING, spec={"compute_target": "cpu"}, tags={"<b>": HOSTILE})
        view.logs.add(log="azureml-logs/70_driver_log.txt", lines=1)
        found.log_lines["exp_1"] = ["epoch 1"]
        found.metrics["exp_1"] = logged("loss", 2.0, 1.0)
        yield found


@contextmanager
def notebook(python: Path, platform: Platform, folder: Path, before: str = "") -> Iterator[Callable[[Callable[[Message], bool]], Message]]:
    """Gives a function that reads the kernel's messages up to the first that fits."""
    config = folder / "config.json"
    config.write_text(json.dumps(platform.config()))
    environment = {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, "IPYTHONDIR": str(folder / "ipython")}
    words = [str(python), str(Path(__file__).with_name("kernel_driver.py")), CELL.format(config=str(config), before=before)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder
    ) as process:
        assert process.stdout is not None and process.stdin is not None and process.stderr is not None
        seen: list[Message] = []

        def until(fits: Callable[[Message], bool]) -> Message:
            assert process.stdout is not None and process.stderr is not None
            for line in process.stdout:
                seen.append(json.loads(line))
                assert seen[-1]["type"] != "error", seen[-1]
                if fits(seen[-1]):
                    return seen[-1]
            raise AssertionError(f"never came; there came: {seen}; {process.stderr.read()}")

        yield until
        process.stdin.close()


def end_the_run(platform: Platform) -> None:
    platform.metrics["exp_1"] += logged("loss", 0.5)
    platform.log_lines["exp_1"].append("epoch 2")
    view = platform.runs["exp_1"]
    view.run.status = job_pb2.RUN_STATUS_COMPLETED
    view.logs[0].lines = 2
    platform.news.put(history_pb2.Event(key="exp_1", type="trainyard.job.v1.RunCompleted"))


def html_of(message: Message) -> str:
    content = message["content"]
    data = content.get("data", {})
    return str(data.get("state", {}).get("html", "") or data.get("text/html", "")) if isinstance(data, dict) else ""


def test_a_live_widgets_state_changes_when_the_platform_says_so(python: Path, platform: Platform, tmp_path: Path) -> None:
    with notebook(python, platform, tmp_path) as until:
        opened = until(lambda message: message["type"] == "comm_open" and "html" in message["content"]["data"].get("state", {}))
        shown = until(lambda message: message["type"] == "display_data")
        assert platform.subscribed.wait(60)
        end_the_run(platform)
        changed = until(lambda message: message["type"] == "comm_msg" and "data-status='Completed'" in html_of(message))

    assert "data-status='Running'" in html_of(opened)
    assert {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"} <= set(shown["content"]["data"])
    assert "epoch 2" in html_of(changed) and "<b>0.5</b>" in html_of(changed)
    assert platform.last(history_pb2.SubscribeRequest).key == "exp_1"


def test_without_widgets_the_html_is_replaced_where_it_stands(python: Path, platform: Platform, tmp_path: Path) -> None:
    with notebook(python, platform, tmp_path, before="import sys; sys.modules['anywidget'] = None") as until:
        shown = until(lambda message: message["type"] == "display_data")
        assert platform.subscribed.wait(60)
        end_the_run(platform)
        changed = until(lambda message: message["type"] == "update_display_data" and "data-status='Completed'" in html_of(message))

    assert "data-status='Running'" in html_of(shown)
    assert shown["content"]["transient"]["display_id"] == changed["content"]["transient"]["display_id"]


def test_history_that_is_away_leaves_no_widget_blank(python: Path, platform: Platform, tmp_path: Path) -> None:
    away = (grpc.StatusCode.UNAVAILABLE, "Unavailable")
    platform.refusals = {"HistoryService/GetRun": away, "EventService/Subscribe": away}

    with notebook(python, platform, tmp_path) as until:
        shown = until(lambda message: message["type"] == "display_data")

    assert "data-status='Running'" in html_of(shown)
    assert "Not everything could be read" in html_of(shown)


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


def in_browser(page: str, folder: Path) -> str:
    """The document as the browser has it once scripts have run."""
    (folder / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{page}")
    assert BROWSER is not None
    words = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=5000",
        "--dump-dom",
    ]
    done = subprocess.run([*words, f"file://{folder / 'page.html'}"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium")
def test_a_browser_runs_nothing_that_a_run_says(tmp_path: Path) -> None:
    found = Snapshot(
        HOSTILE, status=HOSTILE, tags={HOSTILE: HOSTILE}, metrics={HOSTILE: [(0.0, 1.0), (1.0, 2.0)]}, log=HOSTILE, lines=[HOSTILE]
    )

    document = in_browser(f"<script>window.alert = () => {{ document.title = 'owned' }}</script>{as_html(found)}", tmp_path)

    assert "<title>owned</title>" not in document
    assert "<img" not in document
    assert "&lt;script&gt;alert(1)" in document
    assert "<polyline" in document


@pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium")
def test_the_widgets_script_draws_redraws_and_tells_which_log_was_chosen(tmp_path: Path) -> None:
    first = as_html(Snapshot("r", log="a", logs=["a", "b"], lines=["old"]), choosing=True)
    second = as_html(Snapshot("r", status="Completed", log="b", logs=["a", "b"], lines=["new"]), choosing=True)
    module = base64.b64encode(_SCRIPT.encode()).decode()
    page = f"""<div id=el></div><script type=module>
      const {{ default: widget }} = await import("data:text/javascript;base64,{module}");
      const values = {{ html: {json.dumps(first)} }}, saved = [];
      let changed;
      const model = {{
        get: (name) => values[name], set: (name, value) => {{ values[name] = value; }}, save_changes: () => saved.push(values.log),
        on: (name, call) => {{ changed = call; }}, off: () => {{}},
      }};
      const el = document.getElementById("el");
      widget.render({{ model, el }});
      const before = el.shadowRoot.querySelector("pre").textContent;
      const select = el.shadowRoot.querySelector("select");
      select.value = "b";
      select.dispatchEvent(new Event("change", {{ bubbles: true }}));
      values.html = {json.dumps(second)};
      changed();
      const after = el.shadowRoot.querySelector("pre").textContent;
      document.title = JSON.stringify([before, saved, after, el.shadowRoot.querySelector(".state").textContent]);
    </script>"""

    document = in_browser(page, tmp_path)

    title = re.search(r"<title>(.*?)</title>", document)
    assert title is not None, document
    assert json.loads(unescape(title[1])) == ["old", ["b"], "new", "Completed"]
