"""`python -m deploy.local setup | events | up | down | status`: the local stack, from language registries alone.

In containers: `prepare` and `furnish` once, then `run PART` in each, and `ready SERVICE` as its health check.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from deploy.local import assemble
from deploy.local.layout import DEFAULT_BASE, Layout

REPO = Path(__file__).resolve().parents[2]
VERBS = ("setup", "events", "up", "down", "status", "prepare", "furnish", "run", "ready")


def layout_of(home: Path, base: int | None, node_slots: int | None) -> Layout:
    """What is not asked for stays as it was when the stack was started last."""
    known = json.loads((home / "stack.json").read_text()) if (home / "stack.json").exists() else {}
    return Layout(home, base or known.get("base", DEFAULT_BASE), node_slots or known.get("node_slots", 4))


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy.local", description=__doc__)
    parser.add_argument("verb", choices=VERBS, nargs="?", default="setup")
    parser.add_argument("part", nargs="?", default="", help="for run and ready: which")
    parser.add_argument(
        "--home", type=Path, default=Path(os.environ.get("TRAINYARD_HOME") or REPO / ".trainyard"), help="the stack's state"
    )
    parser.add_argument("--port-base", type=int, help=f"first of the ports (default {DEFAULT_BASE}, or as last time)")
    parser.add_argument("--node-slots", type=int, help="nodes that pools may start on this machine (default 4, or as last time)")
    options = parser.parse_args()
    if options.verb == "setup":
        return assemble.main()
    if options.verb == "events":
        from deploy import events_page

        events_page.write(assemble.descriptors())
        return 0
    from deploy.local import containers, stack, supervision

    layout = layout_of(options.home.resolve(), options.port_base, options.node_slots)
    try:
        match options.verb:
            case "up":
                stack.up(layout)
            case "down":
                stack.down(layout)
            case "status":
                return stack.status(layout)
            case "prepare":
                containers.prepare(layout)
            case "furnish":
                containers.furnish(layout)
            case "run":
                containers.run(layout, options.part)
            case "ready":
                return containers.ready(layout, options.part)
    except (stack.StackError, supervision.NotRunning, FileNotFoundError) as error:
        print(f"{options.verb} failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
