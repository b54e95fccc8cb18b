"""The trainer agent."""

import os

# gRPC reads it when it is imported. Its handlers would start threads in a child between fork and exec, which abort when its descriptors
# are closed: about one script in a hundred would end by signal 6.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
