"""Starts a run with nothing but a Kafka producer: python publish_submit_run.py BOOTSTRAP POOL [SUBMISSION_ID]"""

import datetime
import sys
import uuid

from kafka import KafkaProducer

from trainyard.job.v1 import job_pb2, spec_pb2

bootstrap, pool = sys.argv[1:3]
run_id = sys.argv[3] if len(sys.argv) > 3 else f"published_{uuid.uuid4().hex[:8]}"
script = b'from trainyard import Run\nprint("hello from a published run")\nRun.get_context().log("answer", 42)\n'

request = job_pb2.SubmitRun(
    submission_id=run_id,  # becomes the run's id; sent twice it is still one run
    experiment="published",
    spec=spec_pb2.RunSpec(
        compute_target=pool,
        source=spec_pb2.Source(inline=spec_pb2.InlineSource(files={"hello.py": script})),
        entry_script="hello.py",
        environment=spec_pb2.EnvironmentSpec(framework="none"),
    ),
)
headers = {  # CloudEvents 1.0, Kafka binary mode
    "ce_specversion": "1.0",
    "ce_id": str(uuid.uuid4()),
    "ce_source": "examples/publish_event",
    "ce_type": "trainyard.job.v1.SubmitRun",
    "ce_time": datetime.datetime.now(datetime.UTC).isoformat(),
    "ce_subject": run_id,
    "content-type": "application/protobuf",
}
producer = KafkaProducer(bootstrap_servers=bootstrap)
encoded = [(name, value.encode()) for name, value in headers.items()]
producer.send("trainyard.jobs", key=run_id.encode(), value=request.SerializeToString(), headers=encoded).get(timeout=30)
producer.close()
print(run_id)
