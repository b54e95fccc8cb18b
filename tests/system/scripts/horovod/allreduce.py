"""Every rank gives its number; every rank gets the sum."""

import os

import horovod.tensorflow as hvd
import tensorflow as tf

hvd.init()
total = hvd.allreduce(tf.constant(float(hvd.rank())), op=hvd.Sum)
gathered = hvd.allgather(tf.constant([hvd.rank()]))
first = hvd.broadcast(tf.constant(float(hvd.rank() + 7)), root_rank=0)
print(
    f"rank {hvd.rank()} of {hvd.size()}, local {hvd.local_rank()} of {hvd.local_size()}, cross {hvd.cross_rank()} of {hvd.cross_size()}, "
    f"MPI {os.environ['OMPI_COMM_WORLD_RANK']} of {os.environ['OMPI_COMM_WORLD_SIZE']}, sum {float(total):g}, "
    f"gathered {[int(it) for it in gathered]}, broadcast {float(first):g}",
    flush=True,
)
