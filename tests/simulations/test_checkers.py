"""Checkers can fail: each is shown something that it has to find."""

from dataclasses import replace
from typing import Any

import pytest

from crdt import Replica
from gary import assignment
from gary.document import Document
from gary.effects import Effect, Reply, StartContainer, StopContainer
from gary.errors import CommandError, ErrorCode
from gary.facts import MAPS
from gary.identity import Slot
from gary.messages import Snapshot, encode
from gary.runtime.base import StartRequest
from gary.spec import Service, to_json
from gary.state import PromiseState
from gary.storage import AppendChanges, DeleteRecord, DropDocument, PutRecord, PutSnapshot, Table
from gossip import Advertisement, Claim, Incarnation, Lane, Member, Peer, Send, Status, Swim, messages
from gossip.messages import Payload
from simulations.checkers import liveness
from simulations.checkers.acknowledged import Acknowledged
from simulations.checkers.answering import Answering
from simulations.checkers.bearers import Bearers
from simulations.checkers.books import Books
from simulations.checkers.bounds import Bounds
from simulations.checkers.decisions import Decisions
from simulations.checkers.frames import FRAME_SIZE_BYTES_MAX
from simulations.checkers.frames import messages as messages_in
from simulations.checkers.membership import expelled
from simulations.checkers.rollout import Rollout
from simulations.checkers.steadiness import Quiet
from simulations.checkers.wholeness import Wholeness
from simulations.checkers.writers import Writers
from simulations.cluster import Cluster
from simulations.host import Host
from simulations.orders import Order, Orders
from tests.simulations.support import Safely, app, cluster_of, growth, settled

CANARY = "canary-d4b2f7"


def witnessed() -> tuple[Cluster, Orders, Bearers]:
    """Four hosts, orders for them, and who sees on which disks these are."""
    cluster = cluster_of(4, 1)
    books = Books()
    bearers = Bearers(cluster, books)
    cluster.watch(books)
    return cluster, Orders(cluster, bearers), bearers


def test_liveness_sees_a_container_that_is_missing_and_one_too_many() -> None:
    cluster = settled(cluster_of(4, 1), app(4))
    assert liveness(cluster) == []
    host = cluster.hosts[1]
    (container,) = host.engine.present(cluster.clock.now)
    host.engine.stop(container.id, 0.0, cluster.clock.now)
    assert any("web/" in problem for problem in liveness(cluster))


def test_liveness_sees_nodes_that_do_not_see_each_other_and_documents_that_differ() -> None:
    cluster = settled(cluster_of(4, 1), app(4))
    cluster.cut(cluster.hosts[2])
    cluster.run(8.0)
    problems = liveness(cluster)
    assert any("misses" in problem for problem in problems)
    assert any("different documents" in problem for problem in problems)


def test_liveness_expects_who_is_expelled_to_be_out_and_all_others_to_be_of_the_present_root() -> None:
    cluster = settled(cluster_of(5, 1), app(5))
    cluster.answer(cluster.hosts[0], "expel", {"node": "n2"})
    cluster.hosts[3].timing.write_s = (2.0, 2.0)
    cluster.answer(cluster.hosts[0], "rotate", {"overlap_s": 3600.0})
    assert any("different ledgers" in problem for problem in liveness(cluster))
    assert cluster.run_until(lambda: not liveness(cluster), 60.0, 1.0)
    assert any(container.labels.slot for container in cluster.hosts[2].engine.present(cluster.clock.now))
    lagging = cluster.hosts[3]
    assert lagging.agent is not None
    lagging.credentials = replace(lagging.credentials, certificate="<n3 by <another root>>")
    assert liveness(cluster) == ["n3 shows a certificate of another root than the present one"]


def test_liveness_waits_for_what_has_to_be_said_still() -> None:
    cluster = settled(cluster_of(4, 1), app(4))
    host = cluster.hosts[1]
    (container,) = host.engine.present(cluster.clock.now)
    for _ in range(2):
        host.engine.crash(container.id, cluster.clock.now)
        cluster.run_until(lambda: len(cluster.running()) == 4, 20.0)
    cluster.run(0.5)
    problems = liveness(cluster)
    assert [problem for problem in problems if "the document says" not in problem] == []
    assert problems
    assert cluster.run_until(lambda: not liveness(cluster), 60.0, 1.0)


def test_growth_sees_a_document_that_grows() -> None:
    cluster = settled(cluster_of(4, 1), app(4))
    assert growth(cluster, 60.0) == []
    cluster.post(cluster.hosts[0], "scale", {"app": "shop", "services": {"web": 5}})
    assert growth(cluster, 10.0) != []


def test_growth_sees_an_agent_that_writes_the_same_again_and_again() -> None:
    cluster = settled(cluster_of(4, 1), app(4))
    assert growth(cluster, 20.0) == []
    host = cluster.hosts[2]
    for number in range(1, 5):
        cluster.clock.after(4.0 * number, lambda: host.storage.write([PutRecord(Table.NODE, "same", b"again")]))
    assert growth(cluster, 20.0) == ["n2 wrote 4 times at rest"]


def test_safety_sees_bytes_outside_of_documents_and_what_is_told_too_early() -> None:
    cluster = cluster_of(4, 1)
    safety = Safely(CANARY.encode())
    cluster.watch(safety)
    safety.wrote(cluster, cluster.hosts[3], [PutRecord(Table.DEPLOYMENT, "x", CANARY.encode())])
    assert "outside of any document" in safety.pop()
    settled(cluster, app(1, name=f"{CANARY}-app"))
    assert safety.violations == []


def test_safety_sees_what_a_member_of_another_deployment_is_told() -> None:
    cluster = cluster_of(6, 1)
    safety = Safely(CANARY.encode())
    cluster.watch(safety)
    settled(cluster, app(1, name=f"{CANARY}-app"))
    member = next(host for host in cluster.hosts if host.agent and host.agent.deployments)
    other = next(host for host in cluster.hosts if host.agent and not host.agent.deployments)
    cluster.deploy(other, app(1, name="another", resilience=1))
    assert safety.violations == []
    safety.performs(cluster, member, Send(Peer(other.node, other.address), Lane.PROBE, CANARY.encode()))
    assert "that is no member" in safety.pop()
    safety.performs(cluster, other, Reply(1, {"said": CANARY}))
    assert "it is no member" in safety.pop()
    safety.performs(cluster, member, Reply(1, {"said": CANARY}))
    assert safety.violations == []


def test_safety_sees_what_is_told_before_it_is_on_disk() -> None:
    cluster = settled(cluster_of(5, 1), app(1))
    late = Safely()
    cluster.watch(late)  # it has seen none of the writes so far, so to it they did not happen
    cluster.kill(next(host for host in cluster.hosts[1:] if host.storage.load().documents))
    cluster.run(15.0)
    assert any("not on its disk" in violation for violation in late.violations)


def test_safety_sees_statements_that_are_told_before_they_are_on_disk() -> None:
    cluster = cluster_of(4, 1)
    safety = Safely()
    cluster.watch(safety)
    settled(cluster, app(1))
    cluster.cut(cluster.hosts[3])
    cluster.answer(cluster.hosts[0], "rotate", {"overlap_s": 3600.0})
    cluster.run(10.0)
    assert safety.violations == []
    for host in cluster.hosts:
        names = [name for name in host.storage.load().records[Table.TRUST] if name.startswith("statement/")]
        host.storage.write([DeleteRecord(Table.TRUST, name) for name in names])
    cluster.heal()
    cluster.run(20.0)
    assert any("statements that are not on its disk" in violation for violation in safety.violations)


def test_safety_sees_a_start_without_a_promise_and_a_stop_of_what_nobody_else_promised() -> None:
    cluster = settled(cluster_of(4, 1), app(4))
    safety = Safely()
    here, there = cluster.hosts[1], cluster.hosts[2]
    (container,) = here.engine.present(cluster.clock.now)
    request = StartRequest("shop", "shop", container.labels, Service("web"), "1")
    safety.performs(cluster, there, StartContainer(1, "docker", request))
    assert "without a promise" in safety.pop()
    safety.performs(cluster, here, StartContainer(1, "docker", request))
    safety.performs(cluster, here, StopContainer(1, "docker", container.id, 0.0))
    assert safety.violations == []
    withdraw(cluster, here, container.labels.slot)
    safety.performs(cluster, here, StopContainer(1, "docker", container.id, 0.0))
    assert "nobody has promised it" in safety.pop()


def withdraw(cluster: Cluster, host: Host, slot: Slot) -> None:
    """Put on every disk that ``host`` withdrew its promise, behind the agents' backs."""
    rewrite(cluster, host, slot, PromiseState.WITHDRAWN)


def rewrite(cluster: Cluster, host: Host, slot: Slot, state: PromiseState) -> None:
    """Put on every disk that ``host`` says so of ``slot``, behind the agents' backs."""
    ((id, stored),) = host.storage.load().documents.items()
    actor = bytes.fromhex(host.node) + b"\0" * 8
    document = Document(Replica.load(actor, MAPS, stored.snapshot, stored.changes), host.node)
    promise = document.state.promise(host.node, slot) or document.state.promises_of(host.node)[0]
    draft = document.draft()
    draft.promise(replace(promise, slot=slot, state=state))
    document.commit(draft)
    for other in cluster.hosts:
        other.storage.write([PutSnapshot(id, document.replica.save())])


def test_a_promise_that_another_node_wrote_is_seen() -> None:
    cluster = cluster_of(3, 1)
    one, other = cluster.hosts[0].node, cluster.hosts[1].node
    checker = Writers()
    for author, promiser, count in ((one, one, 0), (one, other, 1)):
        replica = Replica(bytes.fromhex(author) + bytes(8), MAPS)
        replica.put({("promises", f"{promiser}/web/1"): b"x"})
        checker.wrote(cluster, cluster.hosts[2], [AppendChanges(author + promiser, tuple(replica.changes_since(())))])
        checker.wrote(cluster, cluster.hosts[2], [PutSnapshot(author + promiser, replica.save())])
        assert len(checker.findings) == 2 * count


@pytest.mark.parametrize("has_order", [True, False])
def test_a_rollout_without_an_order_is_seen(has_order: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_order:
        # A slot counts as done as soon as it has moved, whether it became healthy or not.
        monkeypatch.setattr(
            "gary.rollout.is_done", lambda state, slot: any(map(state.is_current, state.by_slot.get(slot, ())))
        )
    cluster, safety = cluster_of(5, 1), Safely()
    cluster.watch(safety)
    settled(cluster, app(5, update_parallelism=1))
    cluster.deploy(cluster.hosts[0], app(5, image="other", update_parallelism=1))
    cluster.run(30.0)
    assert any("for an update that has" in said for said in safety.violations) is not has_order


@pytest.mark.parametrize("is_anew", [True, False])
def test_no_update_takes_down_what_has_only_just_started_anew(is_anew: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Seeing(Rollout):
        def performs(self, cluster: Cluster, host: Host, effect: Effect) -> None:
            assert isinstance(effect, StopContainer)
            now = cluster.clock.now
            (container,) = [each for each in host.engine.present(now) if each.id == effect.container_id]
            if is_anew:
                host.engine.crash(container.id, now)
                request = StartRequest(container.name, "shop", container.labels, Service("web"), "1")
                assert host.engine.start(request, now).id == container.id
            super().performs(cluster, host, effect)

    monkeypatch.setattr(
        "gary.rollout.is_done", lambda state, slot: any(map(state.is_current, state.by_slot.get(slot, ())))
    )
    cluster, books = cluster_of(5, 1), Books()
    checker = Seeing(books)
    cluster.watch(books, checker)
    settled(cluster, app(5, update_parallelism=1))
    cluster.deploy(cluster.hosts[0], app(5, image="other", update_parallelism=1))
    cluster.run(30.0)
    assert (checker.findings == []) is is_anew


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, 65_536])
def test_what_agents_say_is_found_in_a_frame_whatever_its_size(size: int) -> None:
    said = Snapshot("5a" * 16, 1, bytes(size))
    claim = Claim(Member("0b" * 16, "10.0.0.1:7946", Incarnation(1, 0), Status.ALIVE))
    frame = messages.frame(
        messages.frame_head(b"", "0a" * 16), [messages.encode(claim), messages.encode(Payload(encode(said)))]
    )
    assert list(messages_in(frame)) == [said]
    assert not list(messages_in(messages.frame(messages.frame_head(b"", "0a" * 16), [messages.encode(claim)])))


def test_frames_and_documents_without_bounds_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = settled(cluster_of(4, 1), app(4))
    checker = Bounds()
    checker.look(cluster)
    checker.performs(cluster, cluster.hosts[0], Send(Peer("a", "b"), Lane.BULK, b"x"))
    assert checker.findings == []
    checker.performs(cluster, cluster.hosts[0], Send(Peer("a", "b"), Lane.BULK, bytes(FRAME_SIZE_BYTES_MAX + 1)))
    monkeypatch.setattr("simulations.checkers.bounds.DOCUMENT_SIZE_BYTES_MAX", 10)
    monkeypatch.setattr("simulations.checkers.bounds.UNWRITTEN_MAX", -1)
    checker.look(cluster)
    said = " ".join(finding.said for finding in checker.findings)
    assert "sends a frame of" in said
    assert "holds documents of" in said
    assert "wait for the disk" in said


def test_an_acknowledged_order_that_came_to_nothing_is_seen_unless_another_one_came_after_it() -> None:
    cluster = settled(cluster_of(4, 1), app(2))
    orders = Orders(cluster)
    checker = Acknowledged(orders)
    now = cluster.clock.now
    orders.given += [
        Order("deploy", "shop", {}, "n0", now - 5.0, now - 4.0),
        Order("scale", "shop", {"services": {"web": 7}}, "n0", now - 3.0, now - 2.0),
    ]
    assert ["scale at" in said for said in checker.judge(cluster)] == [True]
    orders.given.append(Order("scale", "shop", {"services": {"web": 2}}, "n1", now - 1.0, now - 0.9))
    assert list(checker.judge(cluster)) == []
    orders.given.append(Order("remove", "shop", {}, "n1", now - 0.5, now))
    assert ["remove at" in said for said in checker.judge(cluster)] == [True]


@pytest.mark.parametrize("operation", ["deploy", "scale", "remove"])
def test_an_order_is_borne_as_long_as_one_disk_has_it_that_had_it_when_it_was_acknowledged(operation: str) -> None:
    cluster, orders, bearers = witnessed()
    order = orders.give(cluster.hosts[0], "deploy", "shop", {"spec": to_json(app(4))})
    cluster.run(5.0)
    if operation != "deploy":
        assert bearers.still_bear(order)
        sizes = {"services": {"web": 3}} if operation == "scale" else {}
        order = orders.give(cluster.hosts[0], operation, "shop", {"app": "shop", **sizes})
        cluster.run(0.1)
    assert order.is_acknowledged
    for host in cluster.hosts[1:]:
        host.storage.wipe()
    assert bearers.still_bear(order)
    cluster.answer(cluster.hosts[1], "expel", {"node": "n0"})
    assert not bearers.still_bear(order)


def test_containers_of_which_every_disk_has_lost_all_knowledge_are_nobody_s_fault_and_others_are() -> None:
    cluster = cluster_of(4, 1)
    books = Books()
    cluster.watch(books)
    settled(cluster, app(4))
    checker = Wholeness(books)
    assert list(checker.judge(cluster)) == []
    first, *others = cluster.hosts
    for host in others:
        cluster.kill(host, with_host=False)
        host.storage.wipe()
    cluster.kill(first, with_host=False)
    first.storage.write([DropDocument(id) for id in first.storage.load().documents])
    assert ["nobody holds its document" in said for said in checker.judge(cluster)] == [True]
    first.storage.wipe()
    assert list(checker.judge(cluster)) == []


def test_orders_for_two_deployments_of_one_name_do_not_overrule_each_other() -> None:
    cluster, orders, bearers = witnessed()
    cluster.partition(cluster.hosts[:2], cluster.hosts[2:])
    cluster.run(15.0)
    given = [
        orders.give(host, "deploy", "shop", {"spec": to_json(app(count))})
        for host, count in ((cluster.hosts[0], 2), (cluster.hosts[2], 1))
    ]
    cluster.run(5.0)
    given.append(orders.give(cluster.hosts[2], "scale", "shop", {"app": "shop", "services": {"web": 2}}))
    cluster.run(5.0)
    assert [order.is_acknowledged for order in given] == [True] * 3
    one, other, scaled = given
    assert not bearers.are_about_the_same(one, other)
    assert not bearers.are_about_the_same(one, scaled)
    assert bearers.are_about_the_same(other, scaled)


def test_an_order_is_answered_and_noted_and_an_error_is_no_acknowledgement() -> None:
    cluster = settled(cluster_of(4, 1), app(2))
    orders = Orders(cluster)
    good = orders.give(cluster.hosts[0], "scale", "shop", {"app": "shop", "services": {"web": 3}})
    bad = orders.give(cluster.hosts[0], "scale", "shop", {"app": "shop", "services": {"nothing": 3}})
    cluster.run(5.0)
    needless = orders.give(cluster.hosts[1], "scale", "shop", {"app": "shop", "services": {"web": 3}})
    cluster.run(5.0)
    assert [order.was_needless for order in (good, bad, needless)] == [False, False, True]
    assert good.is_acknowledged
    assert bad.told_s is not None
    assert not bad.is_acknowledged


def test_an_order_by_a_clock_that_is_ahead_stands_against_a_later_one() -> None:
    cluster = settled(cluster_of(4, 1), app(2))
    orders, now = Orders(cluster), cluster.clock.now
    wrong = Order("scale", "shop", {"services": {"web": 7}}, "n0", now - 3.0, now - 2.0)
    right = Order("scale", "shop", {"services": {"web": 2}}, "n1", now - 5.0, now - 4.0)
    orders.given += [right, wrong]
    assert ["scale at" in said for said in Acknowledged(orders).judge(cluster)] == [True]
    cluster.hosts[3].wall_skew_s = 3600.0
    right.clocks_s = orders.give(cluster.hosts[0], "scale", "shop", {"app": "shop", "services": {"web": 2}}).clocks_s
    assert right.clocks_s == 3600.0
    cluster.hosts[3].wall_skew_s = 0.0
    assert orders.give(cluster.hosts[0], "scale", "shop", {"app": "shop", "services": {"web": 2}}).clocks_s == 3600.0
    assert list(Acknowledged(orders).judge(cluster)) == []


def test_an_order_that_changed_nothing_at_the_second_try_is_a_word_if_it_was_done_at_the_first() -> None:
    cluster, orders, bearers = witnessed()
    host = cluster.hosts[0]
    orders.give(host, "deploy", "shop", {"spec": to_json(app(2))})
    cluster.run(5.0)
    done = orders.give(host, "scale", "shop", {"app": "shop", "services": {"web": 3}})
    cluster.run(5.0)
    assert list(Acknowledged(orders, bearers).judge(cluster)) == []
    done.was_needless = True
    assert list(Acknowledged(orders, bearers).judge(cluster)) == []
    needless = orders.give(host, "scale", "shop", {"app": "shop", "services": {"web": 3}})
    cluster.run(5.0)
    assert needless.was_needless
    assert [bearers.saw_it_done(order) for order in (done, needless)] == [True, False]
    assert ["deploy at" in said for said in Acknowledged(orders).judge(cluster)] == [True]


def test_an_order_from_a_host_that_is_no_member_is_carried_out_by_a_member() -> None:
    cluster = settled(cluster_of(8, 1), app(1, resilience=2))
    outside = next(host for host in cluster.hosts if not host.storage.load().documents)
    orders = Orders(cluster)
    far = orders.give(outside, "scale", "shop", {"app": "shop", "services": {"web": 3}})
    unknown = orders.give(outside, "scale", "nothing", {"app": "nothing", "services": {"web": 3}})
    assert cluster.run_until(lambda: far.told_s is not None and unknown.told_s is not None, 30.0)
    assert far.is_acknowledged
    assert sum(host.agent.counters["orders_taken"] for host in cluster.live() if host.agent) > 0
    assert unknown.is_over
    assert unknown.error is not None
    assert unknown.error.code is ErrorCode.NOT_FOUND
    cluster.run(10.0)
    assert list(Acknowledged(orders).judge(cluster)) == []


def test_an_order_whose_relay_has_ended_is_never_over() -> None:
    cluster = settled(cluster_of(8, 1), app(1, resilience=2))
    outside = next(host for host in cluster.hosts if not host.storage.load().documents)
    orders = Orders(cluster)
    ended = orders.give(outside, "scale", "shop", {"app": "shop", "services": {"web": 3}})
    cluster.kill(outside)
    cluster.run(60.0)
    assert not ended.is_over
    late = Order("scale", "shop", {}, "n0", 0.0, told_s=1.0, error=CommandError(ErrorCode.TIMEOUT, "no answer"))
    assert not late.is_over


def test_an_exception_ends_one_agent_and_is_seen_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = cluster_of(4, 1)
    checker = Answering()
    cluster.driver.ended = lambda host, error: checker.ended(cluster, host, error)
    assert cluster.hosts[2].agent is not None
    victim, receive = cluster.hosts[2].agent.swim, Swim.receive

    def fail(swim: Swim, *arguments: Any) -> Any:
        if swim is victim:
            raise RuntimeError("a mistake")
        return receive(swim, *arguments)

    monkeypatch.setattr(Swim, "receive", fail)
    cluster.run(10.0)
    assert [finding.said for finding in checker.findings] == ["the agent on n2 ended: RuntimeError: a mistake"]
    assert len(cluster.live()) == 3
    assert cluster.sees_all()


def test_a_member_too_few_and_a_document_without_a_place_are_seen() -> None:
    cluster = settled(cluster_of(5, 1), app(3))
    member = next(host for host in cluster.hosts if host.agent and host.agent.deployments)
    assert member.agent is not None
    forgotten = dict(member.agent._here.deployments)
    member.agent._here.deployments.clear()
    said = liveness(cluster)
    assert any("are enough" in sentence for sentence in said)
    assert any("documents on disk and 0 in mind" in sentence for sentence in said)
    member.agent._here.deployments.update(forgotten)
    assert liveness(cluster) == []


def test_who_withdraws_while_all_others_fail_to_keep_a_slot_and_stops_it_is_seen() -> None:
    cluster = settled(cluster_of(4, 1), app(4))
    safety, here, there = Safely(), cluster.hosts[1], cluster.hosts[2]
    (container,) = here.engine.present(cluster.clock.now)
    slot = container.labels.slot
    for others, count in ((PromiseState.HEALTHY, 0), (PromiseState.FAILING, 1)):
        rewrite(cluster, there, slot, others)
        for mine in (PromiseState.HEALTHY, PromiseState.WITHDRAWN):
            rewrite(cluster, here, slot, mine)
            (id,) = here.storage.load().documents
            safety.wrote(cluster, here, [PutSnapshot(id, here.storage.load().documents[id].snapshot)])
        safety.performs(cluster, here, StopContainer(1, "docker", container.id, 0.0))
        assert len([said for said in safety.violations if "knew nobody who kept it" in said]) == count


def test_whom_an_expelled_node_has_expelled_before_it_heard_of_that_is_no_less_a_member() -> None:
    cluster = settled(cluster_of(5, 1), app(2))
    victim, others = cluster.hosts[2], [host for host in cluster.hosts if host is not cluster.hosts[2]]
    cluster.partition([victim], others)
    cluster.answer(cluster.hosts[0], "expel", {"node": "n2"})
    cluster.answer(victim, "expel", {"node": cluster.hosts[3].node})
    assert expelled(cluster) == {victim.node, cluster.hosts[3].node}
    assert cluster.hosts[0].agent is not None
    assert victim.agent is not None
    for statement in cluster.hosts[0].agent.standing.ledger.without(()):
        victim.agent._here.membership.spreading.heard(statement)
    cluster.run(30.0)
    assert expelled(cluster) == {victim.node}
    assert liveness(cluster) == []


def test_an_agent_that_has_news_to_tell_is_seen_until_it_has_told_it_and_one_that_is_alone_has_nobody_to_tell() -> None:
    cluster = settled(cluster_of(4, 1), app(2))
    cluster.run(10.0)
    checker, host = Quiet(), cluster.hosts[1]
    assert list(checker.judge(cluster)) == []
    assert host.agent is not None
    host.agent.swim.advertise(Advertisement((), b"other words"), cluster.clock.now)
    said = list(checker.judge(cluster))
    assert ["1 of 4 agents, n1 among them" in said[0], "1 of 4 agents know something else" in said[1]] == [True, True]
    host.agent.swim._outbox.advertisement_news.drop(host.node)
    assert ["1 of 4 agents know something else" in said for said in checker.judge(cluster)] == [True]
    cluster.run(30.0)
    assert list(checker.judge(cluster)) == []
    for other in cluster.hosts:
        if other is not host:
            cluster.kill(other)
    cluster.run(30.0)
    host.agent.swim.advertise(Advertisement((), b"words for nobody"), cluster.clock.now)
    assert host.agent.swim.has_news
    assert list(checker.judge(cluster)) == []


def test_members_that_know_the_same_and_decide_differently_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = settled(cluster_of(5, 1), app(4))
    honest, checker = Decisions(), Decisions()
    honest.look(cluster)
    assert honest.findings == []
    real = assignment.live_members
    monkeypatch.setattr(
        "simulations.checkers.decisions.live_members",
        lambda state, view: real(state, view)[: 1 + (view.node == cluster.hosts[0].node)],
    )
    checker.look(cluster)
    assert any("decide differently" in finding.said for finding in checker.findings)
