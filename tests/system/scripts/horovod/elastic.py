"""Trains until it has done as many steps as the first argument says, on as many nodes as there are; commits after every step.

The second argument is a folder: step by step, each rank writes a file there that says in which ring it was, and goes on past the step
that the third argument names only once a file called "go" lies there.
"""

import pathlib
import sys
import time

import horovod.tensorflow as hvd
import tensorflow as tf

last, folder, gate = int(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
hvd.init()
state = hvd.elastic.TensorFlowState(variables=[tf.Variable(0.0)], step=0)


@hvd.elastic.run
def train(state) -> None:
    while state.step < last:
        each = hvd.allreduce(tf.constant(1.0), op=hvd.Sum)
        state.variables[0].assign_add(each / hvd.size())
        state.step += 1
        (folder / f"{state.step}.{hvd.rank()}-of-{hvd.size()}").touch()
        while state.step >= gate and not (folder / "go").exists():
            time.sleep(0.05)
            state.commit()
        state.commit()


train(state)
print(f"rank {hvd.rank()} of {hvd.size()}: {state.step} steps, value {float(state.variables[0]):g}", flush=True)
