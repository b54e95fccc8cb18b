"""Wall time of the demo's training as a run against the plain script in the same environment, in turn. Aim: at most plain + 1 s."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import Row
from benchmarks.stack import Stack

REPO = Path(__file__).resolve().parent.parent
FOLDER = REPO / "examples" / "mnist" / "tf-mnist"
FLAGS = {"--batch-size": 50, "--first-layer-neurons": 300, "--second-layer-neurons": 100, "--learning-rate": 0.01}
TRIALS = 3


def measure(home: Path) -> list[Row]:
    from services.chassis import environments
    from services.chassis.settings import Settings
    from trainyard import AmlCompute, ComputeTarget, Experiment, TensorFlow, Workspace

    settings = Settings.load("bench")
    built = environments.build(environments.definition("tensorflow", "", []), settings.cache, lambda line: None)
    stack = Stack(home)
    workspace = Workspace.from_config(str(home / "config.json"))
    target = ComputeTarget.create(
        workspace, "benchoverhead", AmlCompute.provisioning_configuration(vm_size="STANDARD_NC6", min_nodes=1, max_nodes=1)
    )
    target.wait_for_completion()
    platform, plain, ratio = (
        Row(name, unit, aim=aim)
        for name, unit, aim in (
            ("training as a run, submit to Completed", "s", "plain + 1 s"),
            ("plain python tf_mnist.py", "s", ""),
            ("run / plain", "ratio", ""),
        )
    )
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        subprocess.run([sys.executable, str(REPO / "examples" / "mnist" / "make_digits.py"), str(data)], check=True)
        for trial in range(TRIALS + 1):
            estimator = TensorFlow(
                source_directory=str(FOLDER),
                entry_script="tf_mnist.py",
                compute_target=target,
                script_params={"--data-folder": str(data), **FLAGS},
            )
            tail = stack.tail(("trainyard.jobs",))
            begun = time.perf_counter()
            run = Experiment(workspace, "bench-overhead").submit(estimator)
            last = list(tail.until(lambda event, run_id=run.id: event.type in _ENDS and event.message.run_id == run_id))[-1]  # type: ignore[misc]
            as_run = time.perf_counter() - begun
            tail.close()
            if not last.type.endswith("RunCompleted"):
                raise RuntimeError(f"{run.id} ended in {last.type}: {last.message}")
            alone = _plain(built.python, data, Path(scratch) / f"plain{trial}")
            if trial:  # the first pair warms caches
                platform.samples.append(as_run)
                plain.samples.append(alone)
                ratio.samples.append(as_run / alone)
    return [platform, plain, ratio]


_ENDS = {f"trainyard.job.v1.Run{end}" for end in ("Completed", "Failed", "Canceled", "Rejected")}


def _plain(python: Path, data: Path, folder: Path) -> float:
    """The script alone: same interpreter, same environment, no platform."""
    folder.mkdir()
    arguments = [str(FOLDER / "tf_mnist.py"), "--data-folder", str(data), *(str(part) for pair in FLAGS.items() for part in pair)]
    environment = {**os.environ, "PYTHONPATH": str(REPO / "sdk")}
    begun = time.perf_counter()
    subprocess.run([str(python), *arguments], cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - begun
