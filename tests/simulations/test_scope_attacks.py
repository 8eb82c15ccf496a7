"""What a node of the cluster that is no member tries, on whole agents in virtual time: nothing comes of it.

``hostile`` is a node with a certificate that has guessed the deployment's name, so it knows its id. The frames that it
sends come from it by the word of the transport, which is all that it cannot change.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack
import pytest

from gary.advertisements import encode_profile
from gary.document import Document
from gary.effects import Effect
from gary.errors import CommandError, ErrorCode
from gary.identity import Generation
from gary.messages import (
    Acceptance,
    Acquaintance,
    Behind,
    CallForVolunteers,
    ContactAnswer,
    Dismissed,
    Gone,
    Invitation,
    Message,
    Offer,
    Orphans,
    Released,
    Request,
    Response,
    Snapshot,
    Sync,
    decode,
    encode,
)
from gary.spec import Service, Spec, to_json
from gary.storage import Write
from gary.trust.operator import Operator
from gary.volunteering import Requirement, Room
from gossip import Advertisement, Lane, Peer, Send
from gossip.messages import Payload, frame, frame_head
from gossip.messages import decode as decode_frame
from gossip.messages import encode as encode_message
from simulations.cluster import Cluster
from simulations.host import Host
from tests.simulations.support import SEEDS, Safely, app, cluster_of, is_whole, runs, settled
from tests.simulations.test_operators import counted, documents, told, two_members

seeds = pytest.mark.parametrize("seed", SEEDS)
FRAME_SIZE_BYTES_MAX = 4 * 1024 * 1024
CANARY = "canary-2a7f90"
TELLING = (Sync, Snapshot, Invitation)


@dataclass
class Tap:
    """Everything that the cluster's nodes send each other, as it was sent."""

    watches = (Send,)
    sent: list[tuple[Host, Peer, bytes]] = field(default_factory=list)

    def performs(self, cluster: Cluster, host: Host, effect: Effect) -> None:
        if isinstance(effect, Send):
            self.sent.append((host, effect.peer, effect.frame))

    def wrote(self, cluster: Cluster, host: Host, writes: Sequence[Write]) -> None:
        pass

    def to(self, host: Host) -> Iterator[Message]:
        """What was said to a host."""
        for _, peer, data in self.sent:
            if peer.node == host.node:
                yield from messages_in(data)


def messages_in(data: bytes) -> Iterator[Message]:
    for message in decode_frame(data, FRAME_SIZE_BYTES_MAX).messages:
        decoded = decode(message.body) if isinstance(message, Payload) else None
        if decoded is not None:
            yield decoded


def say(cluster: Cluster, hostile: Host, victim: Host, *messages: Message) -> None:
    assert hostile.agent is not None
    head = frame_head(hostile.agent.swim.cluster, hostile.node)
    send(cluster, hostile, victim, frame(head, [encode_message(Payload(encode(message))) for message in messages]))


def send(cluster: Cluster, hostile: Host, victim: Host, data: bytes) -> None:
    peer = Peer(victim.node, victim.address)
    cluster.network.send(hostile.address, hostile.node, peer, Lane.BULK, data)


def advertise(cluster: Cluster, hostile: Host, id: str) -> None:
    """Let a node say that it holds a deployment."""

    def lie(agent: Any, now: float) -> list[Effect]:
        body = encode_profile(agent._here.advertising.profile())
        return list(agent.swim.advertise(Advertisement((*sorted(agent.deployments), id), body), now))

    cluster.act(hostile, lie)
    cluster.run(2.0)


def held(host: Host) -> Document:
    assert host.agent is not None
    (deployment,) = host.agent.deployments.values()
    return deployment.document


def id_of(host: Host) -> str:
    assert host.agent is not None
    (id,) = host.agent.deployments
    return id


def forged(cluster: Cluster, hostile: Host, id: str) -> list[Message]:
    """Documents and changes of the attacker's own making, and everything else that members say to each other."""
    assert hostile.agent is not None
    document = hostile.agent._here.blank_document()
    draft = document.draft()
    draft.deploy(Generation("f" * 32, 2**60, hostile.node), Spec("shop", (Service("web", image="evil"),)))
    draft.stay(hostile.node)
    for host in cluster.hosts[:3]:
        draft.invite(host.node)
    document.commit(draft)
    snapshot = document.replica.save()
    room = Room(hostile.node, "evil", {}, ("docker",), 1e9, 1 << 50, 10_000, frozenset(), True)
    slots = ("web/1", "web/2")
    return [
        *(Sync(id, epoch, body) for epoch in (0, 1, 7) for body in (b"", b"\x00" * 40, snapshot)),
        Behind(id, 0),
        Snapshot(id, 1, snapshot),
        *(Invitation(number, id, slots, data) for number in (1, 9) for data in (b"", snapshot)),
        *(Acceptance(number, id, slots, ()) for number in range(40)),
        *(Offer(number, id, room) for number in range(40)),
        Orphans(id, slots, (b"p" * 16,)),
        Released(id, slots, (b"p" * 16,)),
        Gone(id, ("f" * 32,)),
        Dismissed(id, 2**40, 2**40),
        Acquaintance(id, (b"p" * 16,), asks=True),
        ContactAnswer(1, cluster.hosts[1].node, 0.0, True),
    ]


def asked_in_the_clear(id: str) -> list[Request]:
    operations = (
        *("status", "promises", "endpoints", "scale", "release", "remove", "logs", "summary", "report", "ps"),
        *("deploy", "local_logs", "grant", "hello", "holders", "relay", "events", "join", "leave", "expel"),
    )
    body = msgpack.packb(
        {
            "app": "shop",
            "deployment": id,
            "services": {"web": 0},
            "slot": "web/1",
            "slots": ["web/1"],
            "spec": to_json(app(1)),
            "operator": f"{'0' * 64}:{'0' * 32}",
        }
    )
    return [Request(number, operation, body) for number, operation in enumerate(operations, 10_000)]


@seeds
def test_a_node_that_is_no_member_gets_nothing_and_changes_nothing_whatever_it_says(seed: int) -> None:
    safety, tap = Safely(CANARY.encode()), Tap()
    cluster, members, others = two_members(seed, app(2, resilience=2, image=CANARY), safety, tap)
    hostile = others[0]
    id = id_of(members[0])
    before = documents(cluster)
    for member in members:
        say(cluster, hostile, member, *forged(cluster, hostile, id))
        for request in asked_in_the_clear(id):
            say(cluster, hostile, member, request)
    cluster.run(60.0)
    assert documents(cluster) == before
    assert not [message for message in tap.to(hostile) if isinstance(message, TELLING)]
    assert not [
        message for message in tap.to(hostile) if isinstance(message, Response) and CANARY.encode() in message.body
    ]
    assert counted(cluster, "strangers_refused") >= 2 * 15
    assert counted(cluster, "requests_refused") == 2 * len(asked_in_the_clear(id))
    assert safety.violations == []
    assert is_whole(cluster, members[0])


@seeds
def test_a_claim_to_hold_a_deployment_that_was_guessed_brings_neither_document_nor_commands(seed: int) -> None:
    safety, tap = Safely(CANARY.encode()), Tap()
    cluster, members, others = two_members(seed, app(2, resilience=2, image=CANARY), safety, tap)
    hostile, relaying = others[0], others[1]
    advertise(cluster, hostile, id_of(members[0]))
    before = documents(cluster)
    cluster.run(60.0)
    assert not [message for message in tap.to(hostile) if isinstance(message, TELLING)]
    for _ in range(6):
        assert cluster.answer(relaying, "status", {"app": "shop"})["state"] == "whole"
    assert documents(cluster) == before
    cluster.answer(relaying, "deploy", {"spec": to_json(app(3, resilience=2, image=f"{CANARY}-new"))})
    assert cluster.run_until(lambda: runs(cluster, 3), 20.0)
    assert safety.violations == []
    assert hostile.agent is not None
    assert hostile.agent.counters["orders_taken"] == 0


@seeds
def test_who_claims_alone_to_hold_a_deployment_is_told_nothing_of_it(seed: int) -> None:
    """All members are gone; the operator's command reaches nobody but a liar, and says nothing to it."""
    cluster, members, others = two_members(seed, app(2, resilience=2))
    hostile, relaying = others[0], others[1]
    advertise(cluster, hostile, id_of(members[0]))
    for member in members:
        cluster.kill(member)
    assert cluster.run_until(cluster.sees_all, 20.0)
    held_by_liar = Liar(cluster, hostile)
    reply = cluster.command(relaying, "deploy", {"spec": to_json(app(3, image=CANARY))})
    assert reply.error is not None
    assert reply.error["error"]["code"] in ("unavailable", "conflict")  # type: ignore[index]
    assert held_by_liar.opened
    assert all(operation == "hello" and not arguments for operation, arguments in held_by_liar.opened)


class Liar:
    """A node that answers every order as if it held the deployment, and notes what it could read."""

    def __init__(self, cluster: Cluster, host: Host) -> None:
        assert host.agent is not None
        self.opened: list[tuple[str, Mapping[str, Any]]] = []
        orders: Any = host.agent._commands._orders
        orders._permitted = self._permitted

    def _permitted(self, order: Any) -> Callable[[Any], None]:
        self.opened.append((order.operation, order.arguments))
        return lambda command: command.responder.end({"name": "shop", "watchword": b"w" * 16, "state": "whole"})


@seeds
def test_frames_and_envelopes_that_were_recorded_do_nothing_when_they_come_again(seed: int) -> None:
    tap = Tap()
    cluster, members, others = two_members(seed, app(2, resilience=2))
    relaying, hostile = others[0], others[1]
    cluster.watch(tap)
    cluster.answer(relaying, "scale", {"app": "shop", "services": {"web": 3}})
    assert cluster.run_until(lambda: runs(cluster, 3), 20.0)
    cluster.answer(relaying, "scale", {"app": "shop", "services": {"web": 2}})
    assert cluster.run_until(lambda: runs(cluster, 2), 20.0)
    cluster.run(45.0)
    recorded = list(tap.sent)
    envelopes = [
        (peer, message)
        for host, peer, data in recorded
        if host is relaying
        for message in messages_in(data)
        if isinstance(message, Request)
    ]
    assert len(envelopes) >= 4
    before, taken = documents(cluster), counted(cluster, "orders_taken")
    for host, peer, data in recorded:
        target = cluster.host_of(peer.node)
        if target is not hostile:
            send(cluster, hostile, target, data)  # in the other's name, which the connection gives away
            if host is relaying:
                send(cluster, relaying, target, data)
    for number, (peer, message) in enumerate(envelopes):
        target = cluster.host_of(peer.node)
        say(cluster, hostile, target, Request(50_000 + number, message.operation, message.body))
        say(cluster, relaying, target, Request(60_000 + number, message.operation, message.body))
        other = next(member for member in members if member is not target)
        say(cluster, relaying, other, Request(70_000 + number, message.operation, message.body))
    cluster.run(45.0)
    assert documents(cluster) == before
    assert counted(cluster, "orders_taken") == taken
    restarted = members[0]
    cluster.restart(restarted)
    cluster.run(30.0)
    before = documents(cluster)
    for number, (peer, message) in enumerate(envelopes):
        if peer.node == restarted.node:
            say(cluster, relaying, restarted, Request(80_000 + number, message.operation, message.body))
    cluster.run(30.0)
    assert documents(cluster)[:2] == before[:2]
    assert restarted.agent is not None
    assert restarted.agent.counters["orders_taken"] == 0
    assert cluster.hosts


# An agent at hand that does not pass on what it should


Twist = Callable[[list[Mapping[str, Any]]], list[Mapping[str, Any]]]


def twisted(cluster: Cluster, host: Host, twist: Twist, operation: str) -> Operator:
    """An operator whose agent does something to the answers to ``operation`` that it passes on."""
    honest = cluster.operator(host)
    passed = 0

    def ask(asked: str, arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        nonlocal passed
        answers = list(honest._ask(asked, arguments))
        passed += asked == "relay"
        is_order = asked == "relay" and passed % 2 == (operation == "hello")
        yield from (twist(answers) if is_order else answers)

    return Operator(lambda: cluster.operator_key, honest._entropy, honest._wall_s, ask)


def flipped(answer: Mapping[str, Any], place: int) -> Mapping[str, Any]:
    sealed = bytearray(base64.b64decode(answer["sealed"]))
    sealed[place % len(sealed)] ^= 1
    return {"sealed": base64.b64encode(bytes(sealed)).decode()}


TWISTS: dict[str, Twist] = {
    "changed": lambda answers: [flipped(answers[0], 30), *answers[1:]],
    "changed at the end": lambda answers: [*answers[:-1], flipped(answers[-1], -1)],
    "no base64": lambda answers: [{"sealed": "?"}],
    "no bytes": lambda answers: [{"sealed": 7}],
    "twice": lambda answers: [*answers, answers[0]],
    "nothing": lambda answers: [],
    "in the clear": lambda answers: [{"state": "whole", "name": "shop"}],
    "an error of its own": lambda answers: [{"error": {"code": "ok", "message": 5}}],
}


@pytest.mark.parametrize("operation", ["hello", "status"])
@pytest.mark.parametrize("twist", TWISTS)
def test_an_answer_that_was_tampered_with_is_refused(twist: str, operation: str) -> None:
    cluster, _, others = two_members(1, app(2, resilience=2))
    operator = twisted(cluster, others[0], TWISTS[twist], operation)
    with pytest.raises(CommandError) as refused:
        list(operator.command("status", {"app": "shop"}))
    assert refused.value.code in (ErrorCode.INTERNAL, ErrorCode.UNAVAILABLE)


def test_an_agent_that_leads_to_another_deployment_is_found_out() -> None:
    """The agent at hand names the holders of another deployment of the same operator."""
    cluster = settled(cluster_of(8, 1), app(2, resilience=2))
    settled(cluster, app(2, name="test", resilience=2), cluster.hosts[3])
    cluster.run(60.0)
    relaying = next(host for host in cluster.hosts if not host.storage.load().documents)
    before, honest = documents(cluster), cluster.operator(relaying)

    def ask(asked: str, arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        if asked == "remove":
            (found,) = honest._ask("holders", {"app": "shop"})
            raise CommandError(ErrorCode.ELSEWHERE, "", "", found)
        yield from honest._ask(asked, arguments)

    operator = Operator(lambda: cluster.operator_key, honest._entropy, honest._wall_s, ask)
    with pytest.raises(CommandError) as refused:
        list(operator.command("remove", {"app": "test"}))
    assert refused.value.code in (ErrorCode.NOT_FOUND, ErrorCode.UNAVAILABLE)
    assert documents(cluster) == before


# Volunteers, and those that are members no more


@seeds
def test_a_call_shows_only_what_is_needed_and_who_was_not_invited_gets_nothing(seed: int) -> None:
    tap, safety = Tap(), Safely(CANARY.encode())
    cluster = cluster_of(8, seed)
    cluster.watch(tap, safety)
    spec = app(2, name=f"{CANARY}-app", resilience=2, image=CANARY, environment=(("A", CANARY),))
    settled(cluster, spec)
    cluster.run(60.0)
    outside = [host for host in cluster.hosts if not host.storage.load().documents]
    assert len(outside) == 6
    calls = [call for host in outside for call in tap.to(host) if isinstance(call, CallForVolunteers)]
    assert calls
    for call in calls:
        assert all(isinstance(needed, Requirement) for needed in call.requirements)
        assert CANARY not in repr(call)
    assert not [message for host in outside for message in tap.to(host) if isinstance(message, TELLING)]
    assert safety.violations == []


@seeds
def test_a_member_that_left_is_sent_no_further_changes(seed: int) -> None:
    tap = Tap()
    cluster = settled(cluster_of(5, seed), app(5, resilience=2))
    cluster.run(5.0)
    leaving = cluster.hosts[2]
    former = held(leaving)
    cluster.answer(cluster.hosts[0], "scale", {"app": "shop", "services": {"web": 2}})
    cluster.run(60.0)
    gone = [host for host in cluster.hosts if not host.storage.load().documents]
    assert gone
    left = gone[0]
    cluster.watch(tap)
    members = [host for host in cluster.hosts if host not in gone]
    cluster.answer(members[0], "scale", {"app": "shop", "services": {"web": 1}})
    id = id_of(members[0])
    for member in members:
        say(
            cluster,
            left,
            member,
            Behind(id, 0),
            Sync(id, 0, b""),
            *(Sync(id, 0, c) for c in former.replica.changes_since(())),
        )
    cluster.run(40.0)
    said = list(tap.to(left))
    assert any(isinstance(message, Dismissed) for message in said)
    assert not [message for message in said if isinstance(message, TELLING)]


def test_events_of_a_deployment_are_told_to_its_members_alone() -> None:
    tap = Tap()
    cluster, members, others = two_members(1, app(2, resilience=2))
    cluster.watch(tap)
    for host in cluster.hosts:
        seen = [dict(item) for item in cluster.operator(host).command("events", {})]
        about = {item["deployment"] for item in seen if item.get("deployment")}
        assert about == ({"shop"} if host in members else set())
        assert any(item.get("kind") == "member" for item in seen)
    assert told(cluster, "order") == []
    assert not [message for message in tap.to(others[0]) if isinstance(message, Response) and b"shop" in message.body]
