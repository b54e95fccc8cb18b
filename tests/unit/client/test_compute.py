"""Compute targets from the client's side."""

from __future__ import annotations

import warnings
from typing import Any

import grpc
import pytest

from services.scheduler.domain import shapes
from tests.unit.client.platform import Platform
from trainyard import AmlCompute, ComputeTarget, ComputeTargetException
from trainyard.cluster.v1 import cluster_pb2


def a_pool(platform: Platform, **wish: Any) -> AmlCompute:
    return ComputeTarget.create(platform.workspace(), "gpu", AmlCompute.provisioning_configuration(vm_size="STANDARD_NC6", **wish))


def test_the_idiom_finds_a_pool_or_makes_it(platform: Platform) -> None:
    with pytest.raises(ComputeTargetException, match="gpu"):
        ComputeTarget(platform.workspace(), "gpu")

    made = a_pool(platform, max_nodes=4, idle_seconds_before_scaledown=90)

    assert isinstance(ComputeTarget(platform.workspace(), "gpu"), AmlCompute)
    assert (made.type, made.provisioning_state, made.vm_size, made.provisioning_errors) == ("AmlCompute", "Succeeded", "STANDARD_NC6", None)


def test_the_status_has_every_key_that_azure_gave(platform: Platform) -> None:
    made = a_pool(platform, min_nodes=2, max_nodes=4, vm_priority="LowPriority", idle_seconds_before_scaledown=90)
    platform.pools["gpu"].nodes[0].state = "running"
    platform.pools["gpu"].nodes.add(agent_id="agent-9", state="preparing")
    platform.pools["gpu"].nodes.add(agent_id="agent-8", state="unusable")
    platform.pools["gpu"].nodes.add(agent_id="agent-7", state="leaving")
    platform.pools["gpu"].errors.append("agent-8: Connection refused")
    platform.pools["gpu"].resized_at.FromSeconds(60)

    found = made.get_status().serialize()

    assert set(found) == {
        "currentNodeCount", "targetNodeCount", "nodeStateCounts", "allocationState", "allocationStateTransitionTime", "errors", "creationTime",
        "modifiedTime", "provisioningState", "provisioningStateTransitionTime", "scaleSettings", "vmPriority", "vmSize",
    }  # fmt: skip
    assert (found["currentNodeCount"], found["targetNodeCount"], found["allocationState"], found["vmPriority"]) == (
        2,
        4,
        "Resizing",
        "LowPriority",
    )
    assert found["nodeStateCounts"] == {
        "preparingNodeCount": 1, "runningNodeCount": 1, "idleNodeCount": 1, "unusableNodeCount": 1, "leavingNodeCount": 1, "preemptedNodeCount": 0,
    }  # fmt: skip
    assert found["errors"] == [{"error": {"code": "NodeError", "message": "agent-8: Connection refused"}}]
    assert made.provisioning_errors == found["errors"]
    assert found["scaleSettings"] == {"minNodeCount": 2, "maxNodeCount": 4, "nodeIdleTimeBeforeScaleDown": "PT90S"}
    assert (found["creationTime"], found["allocationStateTransitionTime"]) == ("1970-01-01T00:00:00+00:00", "1970-01-01T00:01:00+00:00")


def test_an_unchanged_pool_keeps_the_time_of_its_last_change(platform: Platform) -> None:
    made = a_pool(platform)

    first, second = made.get_status().serialize(), made.get_status().serialize()

    assert first["allocationStateTransitionTime"] == second["allocationStateTransitionTime"] == first["creationTime"]


@pytest.mark.parametrize(
    ("options", "target"),
    [
        ({"vm_size": ""}, "vm_size"),
        ({"vm_priority": "cheap"}, "vm_priority"),
        ({"min_nodes": 2, "max_nodes": 1}, "max_nodes"),
        ({"min_nodes": -1}, "min_nodes"),
        ({"max_nodes": 0}, "max_nodes"),
        ({"max_nodes": 2.5}, "max_nodes"),
        ({"max_nodes": True}, "max_nodes"),
        ({"idle_seconds_before_scaledown": -1}, "idle_seconds_before_scaledown"),
        ({"idle_seconds_before_scaledown": float("nan")}, "idle_seconds_before_scaledown"),
        ({"admin_username": "root"}, "admin_username"),
        ({"vnet_name": "net"}, "vnet_name"),
        ({"subnet_name": "net"}, "subnet_name"),
        ({"identity_type": "SystemAssigned"}, "identity_type"),
        ({"remote_login_port_public_access": "Enabled"}, "remote_login_port_public_access"),
    ],
)
def test_a_wish_that_cannot_be_had_is_refused_by_its_name(options: dict[str, Any], target: str) -> None:
    with pytest.raises(ComputeTargetException) as caught:
        AmlCompute.provisioning_configuration(**{"vm_size": "STANDARD_NC6", "max_nodes": 4, **options})

    assert (caught.value.code, caught.value.target) == ("UserError", target)


def test_azures_options_that_ask_for_nothing_are_taken_and_what_is_not_kept_is_said() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AmlCompute.provisioning_configuration(
            "STANDARD_NC6", admin_username=None, remote_login_port_public_access="NotSpecified", enable_node_public_ip=False
        )
    with pytest.warns(UserWarning, match="keeps no tags and no description"):
        AmlCompute.provisioning_configuration("STANDARD_NC6", tags={"a": "b"}, description="d")
    with pytest.raises(TypeError, match="unexpected option 'speed'"):
        AmlCompute.provisioning_configuration("STANDARD_NC6", speed=1)


def test_the_sizes_are_those_that_the_scheduler_knows() -> None:
    assert [size["name"] for size in AmlCompute.supported_vmsizes()] == shapes.names()


def test_waiting_prints_states_then_the_closing_lines(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    made = a_pool(platform, min_nodes=1)

    made.wait_for_completion(show_output=True)
    made.wait_for_completion(show_output=True, min_node_count=3, timeout_in_minutes=0)

    assert capsys.readouterr().out.splitlines() == [
        "Succeeded", "AmlCompute wait for completion finished", "", "Minimum number of nodes requested have been provisioned",
        "Resizing: 1 of 3 nodes", "AmlCompute wait for completion finished", "", "Wait timeout has been reached",
    ]  # fmt: skip


def test_waiting_for_a_pool_that_is_gone_returns_and_says_so(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    made = a_pool(platform)
    made.delete()

    made.wait_for_completion(show_output=True, is_delete_operation=True)

    assert made.provisioning_state == "Deleting"
    assert capsys.readouterr().out.splitlines()[0] == "Deleted"


def test_waiting_ends_where_errors_are_reported_and_nothing_comes_up(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    made = a_pool(platform)
    platform.pools["gpu"].nodes.add(agent_id="gpu-0", state="unusable")
    platform.pools["gpu"].errors.append("gpu-0: Host key verification failed")

    made.wait_for_completion(show_output=True, min_node_count=1)

    assert capsys.readouterr().out.splitlines()[-2:] == [
        "There were errors reported from AmlCompute:",
        "gpu-0: Host key verification failed",
    ]


def test_an_update_changes_what_it_names_and_nothing_where_it_is_refused(platform: Platform) -> None:
    made = a_pool(platform, max_nodes=1)

    made.update(max_nodes=3, idle_seconds_before_scaledown=7)
    asked = platform.last(cluster_pb2.UpdatePool)
    with pytest.raises(ComputeTargetException):
        made.update(min_nodes=9)
    platform.refusals = {"UpdatePool": (grpc.StatusCode.INVALID_ARGUMENT, "UserError")}
    with pytest.raises(ComputeTargetException):
        made.update(max_nodes=2)

    assert (asked.HasField("min_nodes"), asked.max_nodes, asked.idle_before_scaledown.seconds) == (False, 3, 7)
    assert platform.pools["gpu"].max_nodes == made.get_status().scale_settings.maximum_node_count == 3


def test_the_nodes_may_come_from_elsewhere(platform: Platform) -> None:
    made = a_pool(platform, provider="ssh", hosts=["me@a", "b:22"], python="/opt/ty/bin/python", settings_file="agent.toml", strict=True)

    asked = platform.last(cluster_pb2.CreatePool)

    assert (made.provider, asked.max_nodes, asked.strict) == ("ssh", 2, True)
    assert (list(asked.provider.ssh.hosts), asked.provider.ssh.settings_file) == (["me@a", "b:22"], "agent.toml")


@pytest.mark.parametrize(
    ("options", "target"),
    [
        ({"provider": "cloud"}, "provider"),
        ({"provider": "ssh"}, "hosts"),
        ({"provider": "ssh", "hosts": "me@a"}, "hosts"),
        ({"provider": "ssh", "hosts": [1]}, "hosts"),
        ({"hosts": ["a"]}, "hosts"),
        ({"provider": "ssh", "hosts": ["a"], "image": "x"}, "image"),
        ({"provider": "docker", "image": 5}, "image"),
        ({"provider": "static", "network": "n"}, "network"),
    ],
)
def test_a_provider_that_cannot_be_had_is_refused_by_the_option_at_fault(options: dict[str, Any], target: str) -> None:
    with pytest.raises(ComputeTargetException) as caught:
        AmlCompute.provisioning_configuration("LOCAL", **options)

    assert (caught.value.code, caught.value.target) == ("UserError", target)


def test_nodes_are_listed_with_what_they_run_and_the_target_is_serialized(platform: Platform) -> None:
    made = a_pool(platform, min_nodes=1)
    platform.pools["gpu"].nodes[0].CopyFrom(cluster_pb2.PoolNode(agent_id="agent-0", state="running", run_id="exp_1"))

    assert made.list_nodes() == [{"nodeId": "agent-0", "nodeState": "running", "runId": "exp_1", "runIds": [], "labels": {}}]
    assert made.serialize()["properties"]["status"]["currentNodeCount"] == 1
    assert [it.name for it in ComputeTarget.list(platform.workspace())] == ["gpu"]
