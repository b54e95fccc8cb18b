"""What `trainyard scheduler replay` runs. One JSON object on standard output: the comparison, or {"error": {code, message}} and exit code 1."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.scheduler.simulation import events, recording
from services.scheduler.simulation.comparing import compare
from trainyard import _policy, _yaml
from trainyard._errors import TrainyardException


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="services.scheduler.simulation", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--kafka", help="bootstrap server")
    where.add_argument("--log", type=Path, help="file of events")
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--from", dest="begin", default="")
    parser.add_argument("--to", dest="end", default="")
    parser.add_argument("--nodes", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        found: dict[str, Any] = _compared(options)
    except TrainyardException as error:
        found = {"error": {"code": error.code, "message": error.message}}
    except (OSError, ValueError) as error:
        found = {"error": {"code": "UserError", "message": str(error)}}
    sys.stdout.write(json.dumps(found, ensure_ascii=False, sort_keys=True) + "\n")
    return 1 if "error" in found else 0


def _compared(options: Any) -> dict[str, Any]:
    policy = _policy.to_message(_yaml.read(options.policy.read_text("utf-8")))
    told = events.of_file(options.log) if options.log is not None else events.of_kafka(options.kafka)
    begin, end = (events.moment(told, text) if text else None for text in (options.begin, options.end))
    return compare(told, recording.workload(told, begin, end), policy, options.nodes)


if __name__ == "__main__":
    sys.exit(main())
