"""`make bench`: every figure the project quotes, side by side in one run. Prints a table and writes benchmarks/results/<name>.json."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import (
    artifacts,
    chassis_throughput,
    environments,
    gangs,
    history_rebuild,
    horovod,
    log_latency,
    placement,
    platform_overhead,
    request_log,
    run_logging,
    scheduling,
    serving_batching,
    serving_floor,
    serving_memory,
    serving_peers,
    serving_rollout,
    serving_takeover,
    simulation,
    submit_latency,
)
from benchmarks.report import Row, print_table

BENCHES = {
    "submit_latency": submit_latency.measure,
    "platform_overhead": platform_overhead.measure,
    "artifacts": artifacts.measure,
    "chassis_throughput": chassis_throughput.measure,
    "environments": environments.measure,
    "gangs": gangs.measure,
    "history_rebuild": history_rebuild.measure,
    "horovod": horovod.measure,
    "request_log": request_log.measure,
    "run_logging": run_logging.measure,
    "scheduling": scheduling.measure,
    "serving_batching": serving_batching.measure,
    "serving_floor": serving_floor.measure,
    "serving_memory": serving_memory.measure,
    "serving_peers": serving_peers.measure,
    "serving_rollout": serving_rollout.measure,
    "serving_takeover": serving_takeover.measure,
    "simulation": simulation.measure,
    "log_latency": log_latency.measure,
    "placement": placement.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHES, []], help="which; all by default")
    parser.add_argument("--home", type=Path, default=Path(".trainyard"), help="home of a running stack (make up)")
    options = parser.parse_args()
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    rows: list[Row] = []
    for name in options.names or BENCHES:
        print(f"measuring {name} ...", flush=True)
        measured = BENCHES[name](options.home)
        (results / f"{name}.json").write_text(json.dumps([row.__dict__ for row in measured], indent=1))
        rows += measured
    print_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
