"""Members that are neither well nor dead: odd clocks, deaf ears, links that carry one way only, copied disks."""

from functools import partial

import pytest

from gossip import Advertisement
from simulations.swarm import Agent
from tests.gossip.harness import Network, hold_dead, settled_cluster, without_gossip


def nobody_was_held_dead(network: Network, hosts: list[Agent]) -> bool:
    return all(network.died_at(one, other) is None for one in hosts for other in hosts)


@pytest.mark.parametrize("jump_s", [10.0, 3600.0, 30 * 24 * 3600.0])
def test_a_member_whose_clock_jumps_ahead_holds_nobody_dead_and_is_not_held_dead(jump_s: float) -> None:
    network, hosts = settled_cluster(1, 6)
    network.perform(hosts[2], hosts[2].swim.leave(network.now))
    network.run(5.0)
    hosts[0].skew_s = jump_s
    network.run(30.0)
    staying = [host for host in hosts if host is not hosts[2]]
    assert nobody_was_held_dead(network, staying)
    assert network.see_each_other(staying)
    network.kill(hosts[5])
    network.wait(lambda: hold_dead(staying[:-1], [hosts[5]]), 8.0)


@pytest.mark.parametrize("rate", [0.8, 1.25])
def test_a_member_whose_clock_runs_at_another_rate_is_a_member_like_others(rate: float) -> None:
    network, hosts = settled_cluster(2, 6)
    for _ in range(600):
        network.run(0.1)
        hosts[0].skew_s += 0.1 * (rate - 1.0)
    assert nobody_was_held_dead(network, hosts)
    network.kill(hosts[5])
    network.wait(lambda: hold_dead(hosts[:5], hosts[5:]), 8.0)


def test_a_member_that_answers_probes_but_drops_gossip_harms_nobody_else() -> None:
    network, hosts = settled_cluster(3, 10)
    deaf, *others = hosts
    deaf.hears = without_gossip
    network.perform(others[0], others[0].swim.advertise(Advertisement(("app",)), network.now))
    network.wait(lambda: all(host.swim.directory.names() == ("app",) for host in others), 2.0)
    network.kill(others[-1])
    network.wait(lambda: hold_dead(others[:-1], others[-1:]), 5.0)
    network.run(60.0)
    assert nobody_was_held_dead(network, [deaf, *others[:-1]])

    frames = network.frames
    network.run(60.0)
    probes_and_acks = 9 * 2 * 60 / network.config.probe_period_s(9)
    assert network.frames - frames < 1.25 * probes_and_acks

    deaf.hears = None
    network.wait(lambda: deaf.swim.directory.names() == ("app",), 90.0)


def test_where_one_link_carries_one_way_only_nobody_is_held_dead() -> None:
    network, hosts = settled_cluster(4, 6)
    network.cut = lambda sender, receiver: (sender, receiver) == (1, 2)
    network.run(60.0)
    assert nobody_was_held_dead(network, hosts)
    assert network.see_each_other(hosts)


def is_cut(mute: bool, sender: int, receiver: int) -> bool:
    return (sender if mute else receiver) == 1


def test_a_member_that_is_heard_by_nobody_is_dead_and_one_that_hears_nobody_is_too() -> None:
    for mute in (True, False):
        network, hosts = settled_cluster(5, 6)
        network.cut = partial(is_cut, mute)
        network.wait(partial(hold_dead, hosts[1:], hosts[:1]), 20.0)
        assert nobody_was_held_dead(network, hosts[1:])
        network.heal()
        network.wait(partial(network.see_each_other, hosts), 20.0)


def test_a_copied_state_directory_is_told_to_both_and_others_go_on() -> None:
    network, hosts = settled_cluster(6, 5)
    copy = network.host(2, address="10.7.7.7:1")
    hosts[1].is_up = True
    network.start(copy, copy.swim.peers() or hosts[1].swim.peers())
    network.run(60.0)
    assert network.conflicts(copy)
    assert network.conflicts(hosts[1])
    others = [host for host in hosts if host is not hosts[1]]
    assert nobody_was_held_dead(network, others)
    assert all(other.swim.alive() == hosts[0].swim.alive() for other in others)


def test_where_a_third_of_all_frames_is_lost_traffic_stays_bounded_and_most_stay_members() -> None:
    network = Network(seed=7)
    hosts = network.cluster_of(50)
    network.run(10.0)
    network.loss = 0.3
    network.run(5.0)
    frames = network.frames
    network.run(5.0)
    # Suspicions make news all the time: rounds of gossip to three members, 13 times a second, are half of it.
    assert network.frames - frames < 50 * 5 * 120
    network.loss = 0.0
    network.wait(lambda: network.see_each_other(hosts), 10.0)
