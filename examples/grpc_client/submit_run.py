"""Starts a run with nothing but gRPC and the protos, and waits for its end: python submit_run.py SCHEDULER_ADDRESS POOL [SUBMISSION_ID]"""

import sys
import uuid

import grpc

from trainyard.job.v1 import job_pb2, job_pb2_grpc, spec_pb2

address, pool = sys.argv[1:3]
submission_id = sys.argv[3] if len(sys.argv) > 3 else f"called_{uuid.uuid4().hex[:8]}"
script = b'from trainyard import Run\nprint("hello from a run started by gRPC")\nRun.get_context().log("answer", 42)\n'

with grpc.insecure_channel(address) as channel:
    jobs = job_pb2_grpc.JobServiceStub(channel)
    answer = jobs.SubmitRun(
        job_pb2.SubmitRun(
            submission_id=submission_id,
            experiment="called",
            spec=spec_pb2.RunSpec(
                compute_target=pool,
                source=spec_pb2.Source(inline=spec_pb2.InlineSource(files={"hello.py": script})),
                entry_script="hello.py",
                environment=spec_pb2.EnvironmentSpec(framework="none"),
            ),
        ),
        timeout=30,
    )
    print(answer.run.run_id, "(was there already)" if answer.repeated_submission else "")
    for change in jobs.WatchRun(job_pb2.WatchRunRequest(run_id=answer.run.run_id)):
        print(job_pb2.RunStatus.Name(change.run.status), change.run.why)
sys.exit(0 if change.run.status == job_pb2.RUN_STATUS_COMPLETED else 1)
