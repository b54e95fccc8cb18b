"""Run by a test in a TensorFlow environment: `python look_at_sessions.py MODEL FLAG...` loads the model as the server does with those flags, calls
its signatures by the quick way into a session and by the one that every TensorFlow has, and prints what came back."""

import json
import sys
from typing import Any

import numpy as np
import tensorflow as tf

from services.serving.model_server import options
from services.serving.model_server.errors import ServeError
from services.serving.model_server.saved_model import SavedModel, Threads

_QUICK = "_make_callable_from_options"
_CALLS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("serving_default", {"x": np.array([1.0, 4.0], np.float32)}, []),
    ("tag", {"s": np.array([b"a\0", b""], object), "n": np.array([1, 2], np.int64)}, ["twice", "text"]),
    ("tag", {"s": np.array([b"a"], object), "n": np.array([1], np.int64)}, ["raw_bytes"]),
    ("total", {"x": np.array([1.0, 4.0], np.float32)}, []),
    ("count", {"n": np.array(3, np.int64)}, []),
    ("positive", {"x": np.array([-1.0], np.float32)}, []),
]


def answers(path: str, threads: Threads) -> list[Any]:
    model = SavedModel("half", 1, path, threads=threads)
    found = []
    for signature, inputs, wanted in _CALLS:
        try:
            outputs = model.predict(model.signature(signature), inputs, wanted)
            found.append({alias: [array.dtype.str, str(array.tolist())] for alias, array in outputs.items()})
        except ServeError as error:
            found.append({"refused": [error.code, "only positive numbers" in error.message]})
    model.close()
    return found


def main() -> None:
    told = options.parse(["--model_base_path=/a", *sys.argv[2:]])
    threads = Threads(told.intra_threads, told.inter_threads)
    configs = []
    session = tf.compat.v1.Session

    class Watched(session):  # type: ignore[misc, valid-type]
        def __init__(self, graph: Any, config: Any) -> None:
            configs.append([config.intra_op_parallelism_threads, config.inter_op_parallelism_threads, config.use_per_session_threads])
            super().__init__(graph=graph, config=config)

    tf.compat.v1.Session = Watched
    quick = answers(sys.argv[1], threads)
    has_quick = hasattr(session, _QUICK)

    class Slow(Watched):
        def __getattribute__(self, name: str) -> Any:
            if name == _QUICK:
                raise AttributeError(name)
            return super().__getattribute__(name)

    tf.compat.v1.Session = Slow
    print(json.dumps({"configs": configs, "has quick": has_quick, "quick": quick, "slow": answers(sys.argv[1], threads)}))


if __name__ == "__main__":
    main()
