"""What the request log costs a model server: the same one without it, with it and no call sampled, and with every call sampled, in turn."""

from __future__ import annotations

import json
import tempfile
import threading
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from benchmarks import serving_load
from benchmarks.report import Row
from benchmarks.serving_floor import TRIALS, _bodies, _load
from services.serving.sampling import spool
from services.serving.sampling.sampler import ABOUT
from tests.conftest import free_port

_AT_ONCE, _REQUESTS = 16, 6000
_RATES = {"without a request log": None, "none sampled": 0.0, "all sampled": 1.0}


def measure(_: Path) -> list[Row]:
    serving_load.check_tools()
    over = threading.Event()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        serving_load.save_model(folder / "model")
        ports = {}
        for number, (name, rate) in enumerate(_RATES.items()):
            ports[name] = {"grpc": free_port(), "rest": free_port()}
            about = ["--model-name=mlp", f"--model-path={folder / 'model'}", "--version=1"]
            log = [] if rate is None else [f"--samples={_spool(folder / str(number), rate)}"]
            stack.enter_context(serving_load.model_server(folder, ports[name]["rest"], ports[name]["grpc"], *about, *log))
        threading.Thread(target=_empty, args=(folder / str(len(_RATES) - 1), over), daemon=True).start()
        stack.callback(over.set)
        rates: dict[tuple[str, str], list[float]] = defaultdict(list)
        for _trial in range(TRIALS):
            for way, body in _bodies(folder).items():
                for name, there in ports.items():
                    rates[way, name].append(_load(there[way], way, body, _AT_ONCE, _REQUESTS))
    rows = []
    for way in ("grpc", "rest"):
        without, *others = _RATES
        what = f"{way} Predict, {_AT_ONCE} in flight"
        rows.append(Row(f"{what}, {without}", "requests/s", rates[way, without]))
        for name in others:
            pairs = zip(rates[way, name], rates[way, without], strict=True)
            rows.append(Row(f"{what}, {name}, to {without}", "times", [a / b for a, b in pairs]))
    return rows


def _spool(folder: Path, rate: float) -> Path:
    folder.mkdir()
    (folder / ABOUT).write_text(json.dumps({"rate": rate}))
    return folder


def _empty(folder: Path, over: threading.Event) -> None:
    """As the serving service does, without Kafka."""
    while not over.wait(0.5):
        for path in spool.closed(folder):
            with spool.taken(path):
                continue
