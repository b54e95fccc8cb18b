"""Runs a cell in a real Jupyter kernel and tells on standard output, a JSON line each, what a front end is sent. Started by the test, in the environment that has Jupyter.

kernel_driver.py CELL: after the cell's end, prints each message until standard input is closed.
"""

import json
import queue
import sys
import threading

from jupyter_client.manager import start_new_kernel

KEPT = ("display_data", "update_display_data", "comm_open", "comm_msg", "stream", "error", "status")


def main() -> None:
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        asked = client.execute(sys.argv[1])
        ended = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
        while not ended.is_set():
            try:
                message = client.get_iopub_msg(timeout=0.2)
            except queue.Empty:
                continue
            if message["msg_type"] in KEPT:
                mine = message["parent_header"].get("msg_id") == asked
                print(json.dumps({"type": message["msg_type"], "content": message["content"], "mine": mine}, default=str), flush=True)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


if __name__ == "__main__":
    main()
