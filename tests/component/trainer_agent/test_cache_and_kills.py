"""The node's cache, shared by processes of which some are killed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.trainer_agent.adapters.blobs import Blobs
from tests.component.service_process import REPO

pytestmark = pytest.mark.component
DATA = b"data" * 250
DIGEST = hashlib.sha256(DATA).hexdigest()
HOLDER = """
import sys, time
from pathlib import Path
from services.trainer_agent.adapters.blobs import Blobs
blobs = Blobs(Path(sys.argv[1]))
with blobs.use() as lease, blobs.part("f" * 64) as part:
    lease.name(sys.argv[2])
    part.write_bytes(b"x" * 500)
    print("holds", flush=True)
    time.sleep(600)
"""


def test_a_killed_process_holds_nothing_any_more(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, budget_bytes=1600)
    with blobs.part(DIGEST) as part:
        part.write_bytes(DATA)
        path, _ = blobs.take_in(part, DIGEST)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "sdk")])}

    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path, DIGEST], env=environment, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"holds\n"
        fits_beside_it = blobs.make_room(1600)
        kept = path.exists() and (tmp_path / "parts" / ("f" * 64)).exists()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    fits_after_it = blobs.make_room(1600)

    assert (fits_beside_it, kept, fits_after_it) == (False, True, True)
    assert not path.exists() and list((tmp_path / "leases").iterdir()) == []
