"""What a pool's provider may be, whatever is sent."""

from __future__ import annotations

from typing import Any

import pytest

from services.scheduler.domain.providers import node_names
from tests.unit.scheduler.story import Story, a_pool, names
from trainyard.cluster.v1 import cluster_pb2 as cluster


def over_ssh(*hosts: str, python: str = "/opt/trainyard/.venv/bin/python", **options: str) -> Any:
    return cluster.Provider(ssh=cluster.SshNodes(hosts=hosts, python=python, **options))


def in_docker(image: str = "trainyard/agent:1", network: str = "") -> Any:
    return cluster.Provider(docker=cluster.DockerNodes(image=image, network=network))


def refused(**options: Any) -> tuple[str, str]:
    """Field at fault and what was said of it; fails where the pool was made."""
    (told,) = Story().tell(a_pool(**options))
    assert isinstance(told, cluster.PoolRejected), told
    return told.failure.target, told.failure.message


@pytest.mark.parametrize("host", ["gpu-1", "me@gpu-1.lab.example", "me@10.0.0.3:2222", "[fe80::1]:22", "me@[::1]"])
def test_a_host_is_named_as_one_would_for_ssh(host: str) -> None:
    (told,) = Story().tell(a_pool(max_nodes=1, provider=over_ssh(host)))

    assert list(told.provider.ssh.hosts) == [host]


@pytest.mark.parametrize(
    "host",
    [
        "",
        "-oProxyCommand=touch /tmp/x",
        "a b",
        "a;b",
        "me@-x",
        "-l@x",
        "a\nb",
        "a:0",
        "a:70000",
        "a:b",
        "$(x)",
        "a'b",
        "me@you@x",
        "::1",
        "x" * 300,
    ],
)
def test_a_host_that_ssh_could_misread_is_refused(host: str) -> None:
    field, what = refused(max_nodes=1, provider=over_ssh(host))

    assert field == "provider.ssh.hosts"
    assert "user@host:port" in what
    assert len(what) < 500


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("identity_file", "relative"),
        ("identity_file", "/a b"),
        ("known_hosts_file", "/a\nProxyCommand x"),
        ("known_hosts_file", "/%h"),
        ("python", "-c"),
        ("python", "/a\0b"),
        ("settings_file", "-x"),
    ],
)
def test_a_file_that_would_be_an_option_or_more_than_one_word_is_refused(field: str, value: str) -> None:
    at_fault, _ = refused(max_nodes=1, provider=over_ssh("gpu-1", **{field: value}))

    assert at_fault == f"provider.ssh.{field}"


def test_a_pool_over_ssh_needs_a_python_and_one_host_a_node() -> None:
    assert refused(provider=over_ssh("gpu-1", python=""), max_nodes=1)[0] == "provider.ssh.python"
    assert refused(provider=over_ssh())[0] == "provider.ssh.hosts"
    assert refused(provider=over_ssh(*(f"h{number}" for number in range(1001))))[0] == "provider.ssh.hosts"
    assert refused(provider=over_ssh("one"), max_nodes=2)[0] == "max_nodes"
    assert "more than once" in refused(provider=over_ssh("one", "two", "one"), max_nodes=2)[1]


@pytest.mark.parametrize("image", ["", "-v", "a b", "a;b"])
def test_an_image_that_is_no_name_is_refused(image: str) -> None:
    assert refused(provider=in_docker(image))[0] == "provider.docker.image"


def test_a_network_that_is_no_name_is_refused() -> None:
    assert refused(provider=in_docker(network="--privileged"))[0] == "provider.docker.network"


def test_no_pool_with_nodes_of_its_own_takes_the_names_of_this_machines() -> None:
    field, _ = refused(name="agent", provider=in_docker())

    assert field == "name"
    assert names(Story().tell(a_pool(name="agent"))) == ["PoolCreated"]


def test_a_pool_without_a_provider_is_of_this_machine() -> None:
    (told,) = Story().tell(a_pool())

    assert told.provider.WhichOneof("kind") == "local"
    assert not told.strict


def test_the_same_pool_with_another_provider_is_another_pool() -> None:
    story = Story()
    story.tell(a_pool(provider=in_docker("one")))
    again, other = a_pool(provider=in_docker("one")), a_pool(provider=in_docker("two"))
    again.submission_id, other.submission_id = "again", "other"

    assert story.tell(again) == []
    assert names(story.tell(other)) == ["PoolRejected"]


def test_the_shape_of_other_machines_is_not_capped_to_this_one() -> None:
    (here,) = Story().tell(a_pool())
    asked = a_pool(max_nodes=1, provider=over_ssh("gpu-1"))
    asked.vm_size = "STANDARD_NC6"
    (there,) = Story().tell(asked)

    assert (there.shape.gpus, there.note) == (1, "")
    assert here.shape.gpus == 0


def test_nodes_are_named_by_their_position() -> None:
    assert node_names("gpu", over_ssh("a", "b", "c"), 2, slots=4) == ("gpu-0", "gpu-1")
    assert node_names("box", in_docker(), 2, slots=4) == ("box-0", "box-1")
    assert node_names("here", cluster.Provider(), 2, slots=3) == ("agent-0", "agent-1", "agent-2")
    assert node_names("hand", cluster.Provider(static=cluster.StaticNodes()), 2, slots=3) == ()


def test_a_pool_over_ssh_grows_along_its_hosts_whatever_this_machine_may_run() -> None:
    story = Story(node_slots=0)
    story.tell(a_pool(min_nodes=1, max_nodes=2, provider=over_ssh("a", "b")))

    assert story.state.pools["pool"].agent_ids == ("pool-0",)
