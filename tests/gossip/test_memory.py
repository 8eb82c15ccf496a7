"""The network in memory loses what it is told to lose, and proves nothing."""

import pytest

from gossip.errors import TransportError
from gossip.memory import MemoryNetwork
from gossip.testing import Recorder
from gossip.transport import Credentials, Lane, Peer, TransportConfig


async def test_what_the_network_cannot_do_it_refuses_to_start_with() -> None:
    credentials = Credentials("certificate", "key", ("root",))
    end = MemoryNetwork().transport(TransportConfig(node="0" * 32, bind="10.0.0.1:0", credentials=credentials))
    with pytest.raises(TransportError, match="nobody can prove who they are"):
        await end.start(Recorder(timeout_s=5.0))


async def test_what_a_cut_node_sends_and_gets_vanishes_until_the_network_heals() -> None:
    network = MemoryNetwork()
    nodes = ("0" * 32, "1" * 32)
    ends = [network.transport(TransportConfig(node=node, bind="10.0.0.1:0")) for node in nodes]
    ears = [Recorder(timeout_s=5.0) for _ in ends]
    for end, ear in zip(ends, ears, strict=True):
        await end.start(ear)

    network.cut(ends[1].address)
    ends[0].send(Peer(nodes[1], ends[1].address), Lane.PROBE, b"lost")
    ends[0].send(Peer(nodes[0], ends[0].address), Lane.PROBE, b"marker")
    await ears[0].frame(b"marker")
    network.cut()
    ends[0].send(Peer(nodes[1], ends[1].address), Lane.PROBE, b"arrives")
    await ears[1].frame(b"arrives")

    assert [received.frame for received in ears[1].frames] == [b"arrives"]
    assert ends[0].counters()["dropped_lost"] == 1
    for end in ends:
        await end.close()
