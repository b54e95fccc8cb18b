"""Preparing an environment: there already, and with its wheels at hand; beside bare uv with the same set. Aim: warm under 0.3 s."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from uv import find_uv_bin

from benchmarks.report import Row
from benchmarks.stack import Stack
from services.chassis import environments
from services.trainer_agent.interpreting import interpret
from trainyard._environment_cache import default_cache
from trainyard.cluster.v1 import cluster_pb2
from trainyard.job.v1 import job_pb2, spec_pb2

WANTED = spec_pb2.EnvironmentSpec(framework="tensorflow", framework_version="2.15", pip_packages=["pandas==2.2.3"])
TRIALS_WARM, TRIALS_BUILD, TRIALS_RUN = 50, 3, 5
_TERMINAL = {f"trainyard.job.v1.{name}" for name in ("RunCompleted", "RunFailed", "RunCanceled", "RunRejected")}


def measure(home: Path) -> list[Row]:
    wanted = environments.resolve(WANTED).definition
    _, hold = environments.acquire(wanted, default_cache(), print)
    rows = [Row("environment warm: resolve, find and hold", "s", _warm(), aim="under 0.3 s"), _phase(home), *_builds(wanted)]
    hold.release()
    return rows


def _warm() -> list[float]:
    """What an agent does before a run whose environment is there."""

    def nothing(*_: object) -> None:
        """Phases are not what is measured."""

    async def one() -> float:
        began = time.perf_counter()
        python = await interpret(WANTED, default_cache(), 60.0, nothing, _no_log)
        taken = time.perf_counter() - began
        python.release()
        return taken

    async def all_of_them() -> list[float]:
        return [await one() for _ in range(TRIALS_WARM)]

    return asyncio.run(all_of_them())


def _no_log() -> object:
    raise RuntimeError("a build was begun where the environment is there")


def _phase(home: Path) -> Row:
    """The environment's phase of real runs, by the agent's reports."""
    stack = Stack(home)
    pool = f"bench{uuid.uuid4().hex[:8]}"
    stack.compute.CreatePool(
        cluster_pb2.CreatePool(submission_id=pool, name=pool, vm_size="LOCAL", vm_priority="dedicated", min_nodes=1, max_nodes=1)
    )
    row = Row("environment warm: the phase of a run", "s", aim="under 0.3 s")
    for _ in range(TRIALS_RUN):
        spec = spec_pb2.RunSpec(compute_target=pool, entry_script="a.py", environment=WANTED)
        spec.source.inline.files["a.py"] = b"pass\n"
        run_id = f"bench_{uuid.uuid4().hex}"
        tail = stack.tail()
        stack.jobs.SubmitRun(job_pb2.SubmitRun(submission_id=run_id, experiment="bench", spec=spec), timeout=30)
        at: dict[bool, float] = {}
        for event in tail.until(lambda event: event.type in _TERMINAL and event.message.run_id == run_id):  # type: ignore[attr-defined]  # noqa: B023
            message = event.message
            if isinstance(message, cluster_pb2.TaskPhase) and message.run_id == run_id and message.phase == "environment":
                at[message.done] = message.at.ToNanoseconds() / 1e9
        tail.close()
        row.samples.append(at[True] - at[False])
    stack.compute.DeletePool(cluster_pb2.DeletePool(name=pool), timeout=30)
    return row


def _builds(wanted: environments.Definition) -> list[Row]:
    """Each into a folder of its own, from one wheel cache, in turns."""
    ours = Row("environment built, wheels at hand: ours, bytecode compiled", "s")
    bare = Row("  uv venv && uv pip install of the same set", "s")
    compiled = Row("  the same with --compile-bytecode", "s")
    for _ in range(TRIALS_BUILD):
        ours.samples.append(_timed(lambda folder: _ours(wanted, folder)))
        bare.samples.append(_timed(lambda folder: _bare(wanted, folder)))
        compiled.samples.append(_timed(lambda folder: _bare(wanted, folder, "--compile-bytecode")))
    ratio = Row(
        "  ratio of ours to uv with --compile-bytecode", "x", [a / b for a, b in zip(ours.samples, compiled.samples, strict=True)], "near 1"
    )
    return [ours, bare, compiled, ratio]


def _timed(work: Callable[[Path], None]) -> float:
    # Beside the wheel cache: hard links do not reach over file systems.
    with tempfile.TemporaryDirectory(dir=default_cache()) as folder:
        began = time.perf_counter()
        work(Path(folder))
        return time.perf_counter() - began


def _ours(wanted: environments.Definition, folder: Path) -> None:
    (folder / "uv").symlink_to(default_cache() / "uv")
    environments.build(wanted, folder, lambda _: None)


def _bare(wanted: environments.Definition, folder: Path, *options: str) -> None:
    python = folder / "venv" / "bin" / "python"
    uv = [find_uv_bin(), "--cache-dir", str(default_cache() / "uv")]
    (folder / "constraints.txt").write_text("\n".join(wanted.constraints))
    install = [
        *uv,
        "pip",
        "install",
        "--python",
        str(python),
        "--constraints",
        str(folder / "constraints.txt"),
        *options,
        *wanted.requirements,
    ]
    for argv in ([*uv, "venv", "--no-project", "--python", wanted.python, str(folder / "venv")], install):
        subprocess.run(argv, check=True, capture_output=True)
