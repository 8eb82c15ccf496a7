"""What a guest, a hostile member and a thief of a token try, on whole agents in virtual time: nothing comes of it."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gary.agent import Agent
from gary.effects import Consult, Effect, Persist, Reply
from gary.messages import CompareLedger, Entrust, Entrusted, Entry, LedgerStatements, Message, encode
from gary.trust.entry import Admittance, Application, Rejection, apply
from gary.trust.entry import encode as encode_entry
from gary.trust.keys import KeyPair
from gary.trust.statements import Admission, Expulsion, Root, Rotation, sign
from gossip import Lane, Send
from gossip.messages import Payload, frame, frame_head
from gossip.messages import encode as encode_message
from simulations.cluster import Cluster
from simulations.host import Host
from tests.simulations.support import SEEDS, app, cluster_of, settled

seeds = pytest.mark.parametrize("seed", SEEDS)
STRANGER, THIEF = KeyPair(b"x" * 32), KeyPair(b"y" * 32)
ID = "1" * 32


def standing(host: Host) -> tuple[object, ...]:
    """All that a stranger might want to change."""
    assert host.agent is not None
    it = host.agent.standing
    heads = [(id, d.document.replica.heads()) for id, d in sorted(host.agent.deployments.items())]
    return (
        it.tls,
        it.ledger.digest,
        it.ledger.present,
        it.vouches,
        tuple(host.agent.alive),
        tuple(heads),
        host.storage.load().records,
    )


def say(host: Host, sender: str, data: bytes, now: float) -> list[Effect]:
    assert host.agent is not None
    return host.agent.received(sender, Lane.BULK, data, now)


def payload(host: Host, sender: str, *messages: Message) -> bytes:
    """A frame of the member ``sender`` to ``host``."""
    assert host.agent is not None
    head = frame_head(host.agent.swim.cluster, sender)
    return frame(head, [encode_message(Payload(encode(message))) for message in messages])


@functools.cache
def pair() -> Cluster:
    """Two members with a deployment; whoever uses it leaves it as it is."""
    cluster = cluster_of(2, 1)
    cluster.deploy(cluster.hosts[0], app(2))
    cluster.run(3.0)
    cluster.invite(cluster.hosts[0], uses=3, expires_s=10**6)
    cluster.run(1.0)
    return cluster


def is_harmless(effects: list[Effect]) -> bool:
    return not any(isinstance(effect, Persist | Consult | Reply) for effect in effects)


ENTRIES: list[Any] = [
    apply(STRANGER, b"tls", "x", vouches=True),
    Application(STRANGER.public, b"tls", THIEF.sign(b"tls"), True, "x"),
    Admittance(b"c" * 16, b"s" * 32, Root(STRANGER.public, "<root>"), (), STRANGER.public, "<leaf>", b""),
    Rejection("no"),
]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.one_of(st.binary(max_size=200), st.sampled_from([encode_entry(entry) for entry in ENTRIES])), st.booleans())
def test_whatever_a_guest_without_a_good_invitation_says_changes_nothing(data: bytes, is_known: bool) -> None:
    cluster = pair()
    host = cluster.hosts[0]
    assert host.agent is not None
    before = standing(host)
    name = ID if is_known else "2" * 32
    effects = say(host, f"guest:{name}", data, cluster.clock.now)
    assert is_harmless(effects)
    assert all(effect.peer.node.startswith("guest:") for effect in effects if isinstance(effect, Send))
    assert standing(host) == before


def forged() -> list[bytes]:
    """Statements that nobody with the root's secret has made."""
    cluster = pair().hosts[0].agent
    assert cluster is not None
    id = cluster.standing.ledger.cluster
    victim = pair().hosts[1].node
    return [
        sign(Expulsion(victim, "n1", victim, b"", 1), STRANGER, id).raw,
        sign(Admission(STRANGER.public, victim, 1), STRANGER, id).raw,
        sign(Rotation(Root(STRANGER.public, "<mine>"), "<cross>", 10**9, False), STRANGER, id).raw,
        sign(Expulsion(victim, "n1", victim, b"", 1), STRANGER, b"e" * 16).raw,
    ]


@pytest.mark.parametrize("number", range(4))
def test_a_statement_that_no_root_has_signed_changes_nothing_and_goes_no_further(number: int) -> None:
    cluster = pair()
    host, member = cluster.hosts
    before = standing(host)
    raw = forged()[number]
    effects = say(host, member.node, payload(host, member.node, LedgerStatements((raw,))), cluster.clock.now)
    assert is_harmless(effects)
    assert not any(isinstance(effect, Send) and raw in effect.frame for effect in effects)
    assert standing(host) == before


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.one_of(
        st.binary(max_size=100).map(Entry),
        st.sampled_from(ENTRIES).map(encode_entry).map(Entry),
        st.lists(st.binary(max_size=20), max_size=5).map(lambda ids: CompareLedger(tuple(ids), is_answer=False)),
        st.lists(st.binary(max_size=60), max_size=5).map(lambda raws: LedgerStatements(tuple(raws))),
        st.builds(Entrust, st.binary(max_size=60) | st.sampled_from(forged()), st.binary(max_size=200)),
        st.binary(max_size=40).map(Entrusted),
    )
)
def test_whatever_a_member_says_about_trust_without_having_the_root_changes_nothing(message: Message) -> None:
    cluster = pair()
    host, member = cluster.hosts
    before = standing(host)
    assert is_harmless(say(host, member.node, payload(host, member.node, message), cluster.clock.now))
    assert standing(host) == before


def test_a_member_gets_a_certificate_for_itself_alone() -> None:
    cluster = pair()
    host, member = cluster.hosts
    assert member.agent is not None
    other = encode_entry(apply(STRANGER, b"tls", "x", vouches=True))
    effects = say(host, member.node, payload(host, member.node, Entry(other)), cluster.clock.now)
    assert is_harmless(effects)


@seeds
def test_who_has_left_says_no_more_of_what_its_disk_has_forgotten(seed: int) -> None:
    cluster = settled(cluster_of(4, seed), app(1))
    cluster.answer(cluster.hosts[0], "admit", {"key": "1" * 64})
    cluster.run(5.0)
    host, other = cluster.hosts[3], cluster.hosts[0]
    agent, asker = host.agent, other.node
    assert agent is not None
    cluster.answer(host, "leave")
    frame = payload(host, asker, CompareLedger((), is_answer=False))
    assert not any(isinstance(effect, Send) for effect in agent.received(asker, Lane.BULK, frame, cluster.clock.now))


@seeds
def test_a_member_that_floods_with_questions_gets_few_answers(seed: int) -> None:
    cluster = cluster_of(2, seed)
    host, member = cluster.hosts
    for number in range(50):
        cluster.answer(host, "admit", {"key": f"{number:064x}"})
    cluster.run(5.0)
    question = payload(host, member.node, CompareLedger((), is_answer=False))
    answers = [say(host, member.node, question, cluster.clock.now) for _ in range(20)]
    sent = [
        effect for effects in answers for effect in effects if isinstance(effect, Send) and len(effect.frame) > 1000
    ]
    assert len(sent) == 1


@seeds
def test_a_thief_of_a_used_token_gets_nothing_and_the_issuer_says_so_once(seed: int) -> None:
    cluster = Cluster(3, seed)
    for host in cluster.hosts:
        cluster.start(host)
    cluster.run(0.5)
    issuer, guest, thief = cluster.hosts
    token = cluster.invite(issuer)
    cluster.answer(guest, "join", {"token": token})
    for _ in range(5):
        assert cluster.command(thief, "join", {"token": token}).error is not None
    assert issuer.agent is not None
    told = [event for event in issuer.agent.events if "n2 was not let in" in event.message]
    assert len(told) == 1
    assert issuer.agent.counters["guests_rejected"] == 5


@seeds
def test_nothing_secret_is_in_any_frame_reply_or_event(seed: int) -> None:
    """Roots' secrets, node keys and the cluster's secret; what has to travel is sealed."""
    cluster = Cluster(4, seed)
    seen: list[bytes] = []

    class Ear:
        watches = get_args(Effect)

        def performs(self, cluster: Cluster, host: Host, effect: Effect) -> None:
            if not isinstance(effect, Persist | Consult):
                seen.append(getattr(effect, "frame", b"") + repr(effect).encode())

        def wrote(self, cluster: Cluster, host: Host, writes: Any) -> None: ...

    cluster.watch(Ear())
    cluster.join_all()
    assert cluster.run_until(cluster.sees_all, 10.0)
    cluster.answer(cluster.hosts[0], "rotate", {})
    cluster.run(20.0)
    everything = b"\n".join(seen)
    for host in cluster.hosts:
        assert host.agent is not None
        for secret in secrets_of(host):
            assert secret not in everything
            assert secret.hex().encode() not in everything


def secrets_of(host: Host) -> list[bytes]:
    records = host.storage.load().records
    by_table: dict[str, Callable[[bytes], bytes]] = {"seed": bytes, "secret": bytes}
    found = [
        read(value)
        for table in records.values()
        for key, value in table.items()
        for name, read in by_table.items()
        if key == name
    ]
    for table in records.values():
        found += [msgpack.unpackb(value)[0] for key, value in table.items() if key.startswith("secret/")]
    assert len(found) >= 4
    return found


def test_random_frames_from_every_kind_of_sender_do_no_harm() -> None:
    cluster = pair()
    host, member = cluster.hosts
    rng = random.Random(1)
    before = standing(host)
    for _ in range(500):
        data = rng.randbytes(rng.randrange(120))
        for sender in (f"guest:{ID}", member.node, "0" * 32):
            say(host, sender, data, cluster.clock.now)
    assert standing(host) == before
    assert isinstance(host.agent, Agent)
