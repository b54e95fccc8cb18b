"""The simulator: 3,000 virtual nodes that fail, 5,000 runs in gangs of 1 to 16, whole nodes and parts, with priorities."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from benchmarks.report import Row
from services.scheduler.simulation import Ledger, Yard
from services.scheduler.simulation.workloads import of_yaml

NODES, RUNS = (int(it) for it in os.environ.get("TRAINYARD_BENCH_SIMULATION", "3000,5000").split(","))
WORKLOAD: dict[str, Any] = {
    "seed": 7,
    "pools": {"pool": {"nodes": NODES, "gpus": 8, "fails_every_seconds": 2_000_000, "back_after_seconds": 300}},
    "runs": {
        "gang": {
            "count": RUNS // 2, "every_seconds": 4, "work_seconds": 600, "prepare_seconds": 10,
            "nodes": [1, 2, 4, 8, 16], "priority": [0, 0, 0, 5], "experiments": 20, "checkpoint_seconds": 60,
        },
        "part": {
            "count": RUNS - RUNS // 2, "every_seconds": 4, "work_seconds": 600, "prepare_seconds": 10,
            "cpus": 8, "memory_in_gb": 16, "gpus": [1, 2, 4], "priority": [0, 0, 0, 5], "experiments": 20,
        },
    },
}  # fmt: skip


def measure(home: Path) -> list[Row]:
    """`home` is not used: time is virtual and so are the nodes."""
    load = of_yaml(WORKLOAD)
    ledger = Ledger(load.begin, [it.run_id for it in load.submissions])
    yard = Yard(load, [ledger.saw])
    begun = time.perf_counter()
    yard.run()
    spent = time.perf_counter() - begun
    share = ledger.figures()["utilisation"]["node_seconds"]["share"]
    return [
        Row(f"virtual hours a second, {NODES} nodes and {RUNS} runs", "h/s", [(yard.now - load.begin).total_seconds() / 3600 / spent]),
        Row("  decisions", "1/s", [yard.decisions / spent]),
        Row("  virtual nodes in use, share", "", [share]),
    ]
