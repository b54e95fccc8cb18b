"""Which place each rank of a ring has, and with which variables it is started."""

from hypothesis import given
from hypothesis import strategies as st

from services.trainer_agent.horovod.places import place_of, size_of, who_is_missing
from services.trainer_agent.horovod.variables import interface_of, variables
from tests.horovod_gangs import a_gang
from trainyard.job.v1.job_pb2 import GangFormed, GangMember


def test_ranks_of_two_nodes_are_numbered_among_all_on_their_node_and_across_nodes() -> None:
    gang = a_gang([("agent-a", "127.0.0.2", 9), ("agent-b", "127.0.0.3", 9)])

    places = [place_of(gang, member, local) for member in gang.members for local in range(2)]

    assert [(it.rank, it.local_rank, it.cross_rank) for it in places] == [(0, 0, 0), (1, 1, 0), (2, 0, 1), (3, 1, 1)]
    assert {(it.size, it.local_size, it.cross_size) for it in places} == {(4, 2, 2)}


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_places_of_any_gang_fit_together_as_horovod_demands(counts: list[int]) -> None:
    gang, next_rank = GangFormed(), 0
    for index, count in enumerate(counts):
        gang.members.append(GangMember(agent_id=f"agent-{index}", ranks=range(next_rank, next_rank + count)))
        next_rank += count

    places = [place_of(gang, member, local) for member in gang.members for local in range(len(member.ranks))]

    assert sorted(it.rank for it in places) == list(range(size_of(gang)))
    for place in places:
        across = [it for it in places if it.local_rank == place.local_rank]
        assert sorted(it.cross_rank for it in across) == list(range(place.cross_size))
        assert 0 <= place.local_rank < place.local_size


def test_ranks_that_are_missing_are_told_by_node() -> None:
    gang = a_gang([("agent-a", "127.0.0.2", 9), ("agent-b", "127.0.0.3", 9)])

    assert who_is_missing(gang, {0}) == "rank 1 on agent-a; ranks 2, 3 on agent-b"
    assert who_is_missing(gang, {0, 1, 2, 3}) == ""


def test_a_rank_is_given_horovods_variables_and_mpis() -> None:
    gang = a_gang([("agent-a", "127.0.0.2", 9), ("agent-b", "127.0.0.3", 9)])
    place = place_of(gang, gang.members[1], 0)

    given_ = variables(place, host="agent-b", address="127.0.0.3", port=7, secret="s", round_="1-0", elastic=False)

    assert given_ == {
        "HOROVOD_RANK": "2",
        "HOROVOD_SIZE": "4",
        "HOROVOD_LOCAL_RANK": "0",
        "HOROVOD_LOCAL_SIZE": "2",
        "HOROVOD_CROSS_RANK": "1",
        "HOROVOD_CROSS_SIZE": "2",
        "HOROVOD_SLOT": "0",
        "HOROVOD_HOSTNAME": "agent-b",
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.3",
        "HOROVOD_GLOO_RENDEZVOUS_PORT": "7",
        "HOROVOD_GLOO_ADDRESS": "127.0.0.3",
        "HOROVOD_GLOO_IFACE": "lo",
        "HOROVOD_RENDEZVOUS_SECRET": "s",
        "HOROVOD_ROUND": "1-0",
        "NCCL_SOCKET_IFNAME": "lo",
        "OMPI_COMM_WORLD_RANK": "2",
        "OMPI_COMM_WORLD_SIZE": "4",
        "OMPI_COMM_WORLD_LOCAL_RANK": "0",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
        "OMPI_COMM_WORLD_NODE_RANK": "0",
    }
    assert variables(place, host="agent-b", address="127.0.0.3", port=7, secret="s", round_="1-0", elastic=True)["HOROVOD_ELASTIC"] == "1"


def test_an_address_that_no_interface_has_is_refused_with_what_to_do() -> None:
    for address, word in (("192.0.2.1", "no interface"), ("some-host", "must be an IP address")):
        try:
            interface_of(address)
        except ValueError as error:
            assert word in str(error)
            assert address in str(error)
        else:
            raise AssertionError(address)
