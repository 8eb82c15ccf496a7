"""Applications come to run, go again, and stay unknown to those who have nothing to do with them."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gary.storage import FILE_NAME
from tests.engines.applications import application, slots
from tests.engines.canaries import canary, copied, files, found, memory, tapped, words_of
from tests.engines.engines import IMAGE
from tests.engines.hosts import Cluster, Host

pytestmark = pytest.mark.engine

DEPLOY_TIMEOUT_S = 30.0
TAKE_OVER_TIMEOUT_S = 20.0


@contextmanager
def image_named(hosts: Cluster, name: str) -> Iterator[str]:
    """The image under a name of its own on every engine."""
    tag = f"{name}:1"
    for host in hosts.hosts:
        host.engine.tag_image(tag)
    try:
        yield tag
    finally:
        for host in hosts.hosts:
            if host.is_on and host.engine.answers():
                host.engine.remove_everything()
                host.engine.remove_tag(tag)


def settled_members(hosts: Cluster, host: Host, name: str) -> set[str]:
    """The names of a deployment's members, as ``host``, one of them, knows it once nobody is being invited any more."""

    def settled() -> set[str]:
        status = host.agent.ask(f"/v1/deployments/{name}")
        if status["state"] != "whole" or any(member["role"] == "invited" for member in status["members"]):
            return set()
        return {member["name"] for member in status["members"]}

    return hosts.eventually(settled, TAKE_OVER_TIMEOUT_S, f"{host} knows its fellows, and all is whole")


def test_01_twenty_replicas_run_on_five_hosts_and_nothing_of_them_comes_to_rest_on_a_sixth(hosts: Cluster) -> None:
    words = {where: canary(where) for where in ("name", "image", "command", "value", "label")}
    everyone = hosts.start_agents(6, labels=lambda host: ["role=spare" if host.number == 6 else "role=worker"])
    workers, outsider = everyone[:5], everyone[5]
    with (
        image_named(hosts, words["image"]) as image,
        tapped(outsider.machine) as wire,
        tapped(workers[1].machine) as control,
    ):
        file = application(
            20,
            name=words["name"],
            image=image,
            command=("sh", "-c", f": {words['command']}; exec sleep 1000000"),
            environment={"SECRET": words["value"]},
            labels={"secret": words["label"]},
            constraints=("node.labels.role == worker",),
        )
        deployed = hosts.deploy(workers[0], file)

        assert hosts.each_once(slots(20), workers), hosts.report()
        assert {len(running) for running in hosts.running(workers).values()} == {4}, hosts.report()
        assert hosts.count([outsider]) == 0

        # what a member holds shows that the search finds what is there
        assert found(words, memory(workers[1].agent.pid)) == sorted(words)
        assert found(words, files(workers[1].agent.directory)) != []
        # what travels is sealed by TLS, so nobody sees anything on the way, not even to a member
        assert control.received()
        assert found(words, control.received()) == []

        assert found(words, memory(outsider.agent.pid)) == []
        assert found(words, files(outsider.agent.directory)) == []
        assert found(words, words_of(outsider.agent)) == []
        assert found(words, wire.received()) == []

        status = outsider.agent.gary("status", words["name"])
        assert status["id"] == deployed["id"]
        assert status["state"] == "whole"
        assert sum(slot["state"] == "healthy" for slot in status["slots"]) == 20
        assert {slot["node_name"] for slot in status["slots"]} == {host.name for host in workers}

        # it passed the answer on, and could read none of it
        assert found(words, memory(outsider.agent.pid)) == []
        assert found(words, files(outsider.agent.directory)) == []
        assert found(words, words_of(outsider.agent)) == []
        assert found(words, wire.received()) == []


def test_05_volunteers_come_from_outside_and_knew_nothing_before(hosts: Cluster) -> None:
    everyone = hosts.start_agents(8)
    words = {where: canary(where) for where in ("name", "image", "value")}
    with image_named(hosts, words["image"]) as image:
        file = application(5, name=words["name"], image=image, environment={"SECRET": words["value"]}, per_node_max=2)
        hosts.deploy(everyone[0], file)
        assert hosts.each_once(slots(5)), hosts.report()
        left = list(everyone)
        ever_members: set[str] = {everyone[0].name}
        newcomers: set[str] = set()
        while len(left) > 2:
            runners = [host for host in left if host.running()]
            ever_members |= settled_members(hosts, runners[0], words["name"])
            assert {host.name for host in runners} <= ever_members
            for outsider in (host for host in left if host.name not in ever_members):
                assert found(words, memory(outsider.agent.pid)) == [], outsider
                assert found(words, files(outsider.agent.directory)) == [], outsider
            victim = runners[0]
            left.remove(victim)
            victim.power_off()
            # two hosts may run four of the five
            wanted = min(5, 2 * len(left))
            hosts.eventually(
                functools.partial(are_running, hosts, left, wanted),
                TAKE_OVER_TIMEOUT_S,
                f"{wanted} replicas run on {left} after {victim} was lost",
            )
            newcomers |= {host.name for host in left if host.running()} - ever_members
        assert newcomers, "nobody from outside ever took over"

        def refused() -> bool:
            """The slot that is left over is missing, and it is known why nobody takes it."""
            status = left[0].agent.ask(f"/v1/deployments/{words['name']}")
            return [bool(slot["declined"]) for slot in status["missing"]] == [True] and status["state"] == "degraded"

        hosts.eventually(refused, TAKE_OVER_TIMEOUT_S, "one slot of five is missing, and the status says why")


def are_running(hosts: Cluster, left: list[Host], wanted: int) -> bool:
    """Whether so many replicas run, two at most on any host."""
    counts = [len(running) for running in hosts.running(left).values()]
    return sum(counts) == wanted and max(counts) <= 2


def test_09_a_removal_leaves_volumes_and_nothing_else_even_where_it_was_not_heard(hosts: Cluster) -> None:
    everyone = hosts.start_agents(5)
    hosts.deploy(everyone[0], application(10, volumes=("data:/data",)))
    assert hosts.each_once(slots(10)), hosts.report()
    volumes = {host.name: host.engine.volumes() for host in everyone}
    assert all(len(names) == 1 for names in volumes.values()), volumes
    away, present = everyone[3], [host for host in everyone if host.number != 4]
    away.cut()
    hosts.eventually(lambda: hosts.sees(everyone[0], present), TAKE_OVER_TIMEOUT_S, f"{away} is held dead")

    present[1].agent.gary("remove", "shop")

    hosts.eventually(lambda: hosts.count(present) == 0, TAKE_OVER_TIMEOUT_S, "no container is left")
    assert hosts.count([away]) == 2, "absence is no permission to stop anything"
    for host in present:
        assert host.agent.run("status", "shop", "--json").exit_code == 4
        assert host.agent.gary("ps")["deployments"] == []
    away.restore()
    hosts.eventually(lambda: hosts.count() == 0, 2 * TAKE_OVER_TIMEOUT_S, f"{away} removes its containers, too")
    hosts.eventually(
        lambda: all(host.agent.gary("ps")["deployments"] == [] for host in everyone), 10, "it is forgotten"
    )
    assert {host.name: host.engine.volumes() for host in everyone} == volumes
    assert all(host.engine.containers(running=False) == [] for host in everyone)


@pytest.mark.parametrize("fault", ["exits at once", "image does not exist"])
def test_10_a_bad_container_backs_off_and_is_tried_on_two_nodes_at_most(hosts: Cluster, fault: str) -> None:
    begin_s = time.time()
    everyone = hosts.start_agents(5)
    if fault == "exits at once":
        image, expected = IMAGE, "7"
    else:
        expected = f"{canary('registry')}.invalid"
        image = f"{expected}/nothing:1"
    hosts.deploy(everyone[0], application(1, image=image, command=("sh", "-c", "echo broken; exit 7")), "--detach")

    def tried_on() -> list[Host]:
        """By the engines' own words: where a container was made, or where an image was sought in vain."""
        return [host for host in everyone if was_made(host) or was_sought(host)]

    def was_made(host: Host) -> bool:
        return host.engine.has_created("gary.deployment", begin_s)

    def was_sought(host: Host) -> bool:
        return image != IMAGE and expected in host.engine.log.read_text()

    def reasons() -> str:
        return " ".join(str(slot["reason"]) for slot in everyone[0].agent.ask("/v1/deployments/shop")["slots"])

    hosts.eventually(lambda: expected in reasons(), TAKE_OVER_TIMEOUT_S, f"the slot's reason speaks of {expected!r}")
    hosts.eventually(lambda: len(tried_on()) == 2, 60, "a second node tries it, too")
    # with nothing new to say, no document changes, however often the container is tried
    hosts.eventually_constant(
        lambda: [document_changes(host) for host in everyone], 12, 60, "the documents stop changing"
    )
    assert len(tried_on()) == 2, hosts.report()
    assert expected in reasons()


def document_changes(host: Host) -> tuple[int, int]:
    """Number and bytes of the changes that the node has on its disk, its snapshots included."""
    with copied(host.agent.directory / FILE_NAME) as disk:
        tables = ("change", "snapshot")
        rows = [
            disk.execute(f"SELECT count(*), coalesce(sum(length(content)), 0) FROM {table}").fetchone()
            for table in tables
        ]
    return sum(count for count, _ in rows), sum(size for _, size in rows)
