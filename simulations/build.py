"""A scenario's cluster: its hosts, where they are, and how they reach each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gary.runtime.base import Capacity
from gossip import PROFILES, VERSIONS, VersionRange
from simulations.cluster import Cluster
from simulations.host import Host
from simulations.network import Link
from simulations.scenarios.model import Hosts, Scenario, Topology, Way


@dataclass(frozen=True, slots=True)
class Place:
    """Where a host is."""

    zone: str
    rack: str


def build(scenario: Scenario) -> tuple[Cluster, list[tuple[Host, Hosts]]]:
    """The cluster of ``scenario``, and all its hosts with the group that each belongs to. No agent has started."""
    places: dict[str, Place] = {}
    cluster = Cluster(
        0,
        scenario.seed,
        swim=PROFILES[scenario.profile],
        changes_per_epoch=scenario.epoch_changes,
        between=_links(scenario.topology, places),
        handshake_s=scenario.topology.handshake_s,
    )
    hosts: list[tuple[Host, Hosts]] = []
    zones = scenario.topology.zones
    in_zone = dict.fromkeys(zones, 0)
    for group in scenario.hosts:
        capacity = Capacity(cpus=group.cpus, memory_bytes=group.memory_bytes, architecture="x86_64")
        for _ in range(group.count):
            zone = group.zone or zones[len(hosts) % len(zones)]
            rack = f"{zone}-r{in_zone[zone] % scenario.topology.racks}"
            in_zone[zone] += 1
            host = cluster.add(
                capacity,
                {"zone": zone, "rack": rack, **group.labels},
                containers_max=group.containers,
                version=group.version,
                vouches=group.vouch,
            )
            host.speaks = VersionRange(VERSIONS.lowest, group.speaks)
            engines, disks = scenario.engines, scenario.disks
            host.timing.pull_s, host.timing.start_s, host.timing.stop_s = (
                engines.pull_s,
                engines.start_s,
                engines.stop_s,
            )
            host.timing.write_s, host.timing.stalls, host.timing.stall_s = disks.write_s, disks.stalls, disks.stall_s
            places[host.address] = Place(zone, rack)
            hosts.append((host, group))
    return cluster, hosts


def _links(topology: Topology, places: dict[str, Place]) -> Callable[[str, str], Link]:
    uplink = topology.uplink_bytes_per_s
    in_rack, in_zone, far = (_link(way, uplink) for way in (topology.in_rack, topology.in_zone, topology.far))
    special = {frozenset(between.zones): _link(between.way, uplink) for between in topology.between}

    def between(source: str, target: str) -> Link:
        here, there = places.get(source), places.get(target)
        if here is None or there is None:
            return far
        if here.zone != there.zone:
            return special.get(frozenset((here.zone, there.zone)), far)
        return in_rack if here.rack == there.rack else in_zone

    return between


def _link(way: Way, uplink_bytes_per_s: float) -> Link:
    return Link(
        delay_s=way.delay_s,
        tail=way.tail,
        tail_s=way.tail_s,
        loss=way.loss,
        stalls=way.stalls,
        bytes_per_s=uplink_bytes_per_s,
    )
