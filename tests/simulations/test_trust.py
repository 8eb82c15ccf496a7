"""Who belongs to a cluster: invitations, expulsions and changes of the root, on whole agents in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from gary.effects import Reply
from gary.messages import Entrusted
from gary.spec import to_json
from gary.storage import DeleteRecord, Table
from simulations.checkers import liveness
from simulations.cluster import Cluster
from simulations.host import Host
from tests.simulations.support import SEEDS, app, cluster_of, runs, settled

seeds = pytest.mark.parametrize("seed", SEEDS)


def refusal(reply: Reply) -> str:
    """What the user is told."""
    assert reply.error is not None, reply.item
    error: Any = reply.error["error"]
    return f"{error['message']} {error['hint']}"


def events(host: Host, kind: str) -> list[str]:
    assert host.agent is not None
    return [event.message for event in host.agent.events if event.kind == kind]


def started(count: int, seed: int) -> Cluster:
    cluster = Cluster(count, seed)
    for host in cluster.hosts:
        cluster.start(host)
    cluster.run(0.5)
    return cluster


def doctor(host: Host, cluster: Cluster) -> dict[str, str]:
    """What ``gary doctor`` sees, by check."""
    findings = cluster.answer(host, "doctor")["findings"]
    return {finding["check"]: f"{finding['what']} {finding['remedy']}" for finding in findings}


def root_of(host: Host) -> str:
    assert host.agent is not None
    return host.agent.standing.ledger.present.name


def holds_secret(host: Host, root: str) -> bool:
    """Whether the disk has the secret half of the root that is called ``root``."""
    return any(name.startswith(f"secret/{root.split()[-1]}") for name in host.storage.load().records[Table.TRUST])


def is_certified(host: Host) -> bool:
    assert host.agent is not None
    return host.agent.standing.is_certified


# Invitations


@seeds
def test_an_invitation_lets_in_as_many_as_it_says_and_both_sides_say_when_it_is_used_up(seed: int) -> None:
    cluster = started(4, seed)
    token = cluster.invite(cluster.hosts[0], uses=2)
    for host in cluster.hosts[1:3]:
        cluster.answer(host, "join", {"token": token})
    late = cluster.command(cluster.hosts[3], "join", {"token": token})
    assert "used up" in refusal(late)
    assert "gary invite" in refusal(late)
    assert any(
        "n3 was not let in" in message and "used up" in message for message in events(cluster.hosts[0], "invitation")
    )
    assert any("used up" in message for message in events(cluster.hosts[3], "invitation"))
    cluster.run(2.0)
    assert [len(host.agent.alive) for host in cluster.hosts if host.agent] == [3, 3, 3, 1]


@seeds
def test_uses_are_exact_when_many_come_at_once(seed: int) -> None:
    cluster = started(8, seed)
    token = cluster.invite(cluster.hosts[0], uses=3)
    numbers = [(host, cluster.post(host, "join", {"token": token})) for host in cluster.hosts[1:]]
    cluster.run(20.0)
    answers = [host.replies[number][-1] for host, number in numbers]
    assert sum(answer.error is None for answer in answers) == 3


@seeds
def test_a_join_is_done_within_two_seconds_and_the_node_is_usable_then(seed: int) -> None:
    cluster = Cluster(4, seed)
    late = cluster.hosts.pop()
    cluster.join_all()
    assert cluster.run_until(cluster.sees_all, 10.0)
    settled(cluster, app(3))
    cluster.hosts.append(late)
    cluster.start(late)
    cluster.run(0.5)
    token = cluster.invite(cluster.hosts[1])
    before = cluster.clock.now
    assert cluster.answer(late, "join", {"token": token})["nodes"] == 4
    assert cluster.clock.now - before < 2.0
    assert cluster.answer(late, "status", {"app": "shop"})["state"] == "whole"


@seeds
def test_who_asks_to_be_let_in_while_the_root_changes_is_told_so_and_let_in_once_it_is_known(seed: int) -> None:
    cluster = started(7, seed)
    *members, guest = cluster.hosts
    cluster.join_all(members)
    cluster.run(2.0)
    tokens = {host.name: cluster.invite(host) for host in members}
    cluster.answer(members[0], "rotate", {"overlap_s": 3600})
    issuer = next(host for host in members if not holds_secret(host, root_of(members[0])))
    token = tokens[issuer.name]
    issuer.timing.write_s = (4.0, 4.0)
    cluster.run(1.0)
    assert issuer.unwritten, "it has heard of the new root, and does not know it durably"
    issuer.timing.write_s = (0.001, 0.001)  # What comes next is on the disk right after it.
    asked = cluster.post(guest, "join", {"token": token})
    assert cluster.run_until(lambda: any(reply.last for reply in guest.replies[asked]), 20.0)
    assert "does not vouch for the cluster's present root" in refusal(guest.replies[asked][-1])
    cluster.run(30.0)
    assert cluster.command(guest, "join", {"token": token}).error is None
    assert cluster.run_until(lambda: len(guest.agent.alive if guest.agent else ()) == 7, 20.0)


@seeds
def test_who_gets_something_to_run_while_it_waits_to_be_let_in_stays_where_it_is(seed: int) -> None:
    cluster = started(4, seed)
    issuer, fellow, loner, _ = cluster.hosts
    assert cluster.join(fellow, issuer).error is None
    token = cluster.invite(issuer)
    joining = cluster.post(loner, "join", {"token": token})
    assert cluster.deploy(loner, app(1)).error is None
    cluster.run(20.0)
    assert "runs deployments (shop)" in refusal(loner.replies[joining][-1])
    assert loner.agent is not None
    assert len(loner.agent.alive) == 1
    cluster.answer(loner, "remove", {"app": "shop"})
    cluster.run(5.0)
    assert cluster.join(loner, issuer).error is None
    assert cluster.run_until(lambda: len(fellow.agent.alive if fellow.agent else ()) == 3, 10.0)


@seeds
def test_who_gets_company_while_it_waits_to_be_let_in_stays_with_it(seed: int) -> None:
    cluster = started(4, seed)
    issuer, fellow, loner, guest = cluster.hosts
    assert cluster.join(fellow, issuer).error is None
    token, own = cluster.invite(issuer), cluster.invite(loner)
    cluster.partition([issuer, fellow], [loner, guest])
    joining = cluster.post(loner, "join", {"token": token})
    cluster.answer(guest, "join", {"token": own})
    cluster.heal()
    cluster.run(20.0)
    assert "in a cluster already, with 1 other node" in refusal(loner.replies[joining][-1])
    assert [len(host.agent.alive) for host in cluster.hosts if host.agent] == [2, 2, 2, 2]


@seeds
def test_an_invitation_that_has_expired_was_revoked_or_is_somebody_elses_lets_nobody_in(seed: int) -> None:
    cluster = started(5, seed)
    issuer, fellow, guest, stranger, _ = cluster.hosts
    assert cluster.join(fellow, issuer).error is None

    expiring = cluster.invite(issuer, expires_s=60)
    cluster.run(61.0)
    assert "expired" in refusal(cluster.command(guest, "join", {"token": expiring}))
    guest.wall_skew_s = -3600.0  # the issuer's clock counts
    assert "expired" in refusal(cluster.command(guest, "join", {"token": expiring}))
    assert any("expired" in message for message in events(issuer, "invitation"))
    guest.wall_skew_s = 0.0

    revoked = cluster.invite(issuer)
    [known] = [one for one in cluster.answer(issuer, "invitations")["invitations"] if one["state"] == "open"]
    cluster.answer(issuer, "revoke", {"invitation": known["id"][:8]})
    assert "revoked" in refusal(cluster.command(guest, "join", {"token": revoked}))

    token = cluster.invite(issuer)
    wrong_node = cluster.command(guest, "join", {"token": token, "peer": fellow.address})
    assert "only the one that issued it" in refusal(wrong_node)
    other_cluster = cluster.command(guest, "join", {"token": token, "peer": stranger.address})
    assert other_cluster.error is not None
    assert "itself" in refusal(cluster.command(issuer, "join", {"token": token}))
    for nonsense in ("gary1.", "gary1.AAAA", token[:-9], "hello", token.replace("A", "B")):
        assert "token" in refusal(cluster.command(guest, "join", {"token": nonsense}))
    assert guest.agent is not None
    assert len(guest.agent.alive) == 1
    cluster.answer(guest, "join", {"token": token})


@seeds
def test_an_invitation_and_its_uses_outlive_a_restart_of_the_issuer(seed: int) -> None:
    cluster = started(4, seed)
    token = cluster.invite(cluster.hosts[0], uses=2)
    cluster.answer(cluster.hosts[1], "join", {"token": token})
    cluster.restart(cluster.hosts[0])
    cluster.run(1.0)
    cluster.answer(cluster.hosts[2], "join", {"token": token})
    assert "used up" in refusal(cluster.command(cluster.hosts[3], "join", {"token": token}))


@seeds
def test_a_host_that_runs_deployments_alone_does_not_join_another_cluster(seed: int) -> None:
    cluster = started(2, seed)
    cluster.deploy(cluster.hosts[1], app(1))
    token = cluster.invite(cluster.hosts[0])
    refused = refusal(cluster.command(cluster.hosts[1], "join", {"token": token}))
    assert "shop" in refused
    assert "remove them first" in refused


@seeds
def test_a_node_that_is_cut_off_in_the_middle_of_joining_can_try_again_with_the_same_token(seed: int) -> None:
    cluster = started(2, seed)
    token = cluster.invite(cluster.hosts[0])
    cluster.post(cluster.hosts[1], "join", {"token": token})
    cluster.run(0.103)
    cluster.cut(cluster.hosts[1])
    cluster.run(20.0)
    cluster.heal()
    cluster.answer(cluster.hosts[1], "join", {"token": token})
    assert cluster.run_until(cluster.sees_all, 5.0)


@seeds
def test_a_node_that_may_not_vouch_lets_nobody_in_and_says_who_can(seed: int) -> None:
    cluster = Cluster(3, seed)
    cluster.hosts[1].vouches = False
    for host in cluster.hosts:
        cluster.start(host)
    cluster.run(0.5)
    assert cluster.join(cluster.hosts[1], cluster.hosts[0]).error is None
    cluster.run(2.0)
    refused = refusal(cluster.command(cluster.hosts[1], "invite", {}))
    assert "does not vouch" in refused
    assert "n0" in refused
    token = cluster.answer(cluster.hosts[0], "invite", {"vouch": False})["token"]
    cluster.answer(cluster.hosts[2], "join", {"token": token})
    assert "does not vouch" in refusal(cluster.command(cluster.hosts[2], "invite", {}))


@seeds
def test_a_node_that_has_not_got_a_new_root_s_secret_yet_says_so(seed: int) -> None:
    cluster = cluster_of(24, seed)
    cluster.answer(cluster.hosts[0], "rotate", {})
    assert cluster.run_until(lambda: len({root_of(host) for host in cluster.hosts}) == 1, 2.0)
    waiting = next(host for host in cluster.hosts if host.agent is not None and not host.agent.standing.vouches)
    refused = refusal(cluster.command(waiting, "invite", {}))
    assert "new root yet" in refused
    assert "wait some seconds" in refused


# Expulsions


@seeds
def test_an_expelled_node_is_refused_by_everybody_at_once_and_its_slots_are_replaced(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(10))
    victim, others = cluster.hosts[2], [host for host in cluster.hosts if host is not cluster.hosts[2]]
    out = victim.node
    cluster.answer(cluster.hosts[0], "expel", {"node": "n2"})
    cluster.run(1.0)
    for operation, arguments in (
        ("scale", {"services": {"web": 3}}),
        ("remove", {}),
        ("deploy", {"spec": to_json(app(3))}),
        ("grant", {"operator": "00", "revoke": True}),
    ):
        assert "nobody would hear of it" in refusal(cluster.command(victim, operation, {"app": "shop", **arguments}))
    for host in others:
        assert host.agent is not None
        assert out not in host.agent.alive
        assert host.agent.swim.member(out) is None
        assert any("n2 was expelled by n0" in message for message in events(host, "expelled"))
    assert any("expelled this node" in message for message in events(victim, "expelled"))
    assert "gary leave" in doctor(victim, cluster)["expulsions"]
    names = {host.name for host in others}
    assert cluster.run_until(lambda: all(names & set(where) for where in cluster.running().values()), 6.0)
    assert len(cluster.running()) == 10
    frames = cluster.network.counters["refused"]
    cluster.run(5.0)
    assert cluster.network.counters["refused"] > frames
    assert all(out not in host.agent.alive for host in others if host.agent)


@seeds
def test_who_was_away_learns_of_an_expulsion_when_it_returns(seed: int) -> None:
    cluster = settled(cluster_of(6, seed), app(6))
    out = cluster.hosts[5].node
    cluster.kill(cluster.hosts[4], with_host=False)
    cluster.partition(cluster.hosts[:2], cluster.hosts[2:])
    cluster.run(5.0)
    cluster.answer(cluster.hosts[0], "expel", {"node": "n5"})
    cluster.run(20.0)
    cluster.heal()
    cluster.start(cluster.hosts[4])
    stay = cluster.hosts[:5]

    def is_out() -> bool:
        return all(host.agent is not None and sorted(host.agent.alive) == sorted(h.node for h in stay) for host in stay)

    assert cluster.run_until(is_out, 20.0)
    cluster.run(30.0)
    assert is_out()
    for host in stay:
        assert host.agent is not None
        assert out in host.agent.standing.ledger.expulsions
        for deployment in host.agent.deployments.values():
            assert out not in deployment.state.holders


@seeds
def test_two_sides_that_expel_each_other_are_both_out_after_healing_and_an_event_says_so(seed: int) -> None:
    cluster = settled(cluster_of(6, seed), app(6))
    first, second = cluster.hosts[0], cluster.hosts[3]
    cluster.partition(cluster.hosts[:3], cluster.hosts[3:])
    cluster.run(15.0)
    cluster.answer(first, "expel", {"node": "n3"})
    cluster.answer(second, "expel", {"node": "n0"})
    cluster.run(5.0)
    cluster.heal()
    stay = [host for host in cluster.hosts if host not in (first, second)]

    def agree() -> bool:
        wanted = sorted(host.node for host in stay)
        return all(host.agent is not None and sorted(host.agent.alive) == wanted for host in stay)

    assert cluster.run_until(agree, 40.0)
    cluster.run(60.0)
    assert agree()
    for host in stay:
        assert any("have expelled each other" in message for message in events(host, "expelled"))
        assert "n0 and n3 have expelled each other" in doctor(host, cluster)["expulsions"]
        assert cluster.answer(host, "status", {"app": "shop"})["state"] == "whole"


@seeds
def test_an_expelled_node_starts_nothing_and_is_another_node_after_it_has_left(seed: int) -> None:
    cluster = settled(cluster_of(4, seed), app(4))
    victim = cluster.hosts[3]
    before = victim.node
    cluster.answer(cluster.hosts[0], "expel", {"node": before[:8]})
    cluster.run(40.0)
    held = [where for where in cluster.running().values() if victim.name in where]
    assert len(held) <= 1, "it took on what the others keep"
    cluster.restart(victim)
    cluster.run(5.0)
    assert victim.node == before
    assert cluster.run_until(lambda: victim.agent is not None, 1.0)
    cluster.answer(victim, "leave", {"timeout_s": 60.0})
    cluster.run(2.0)
    cluster.start(victim)
    cluster.run(1.0)
    assert victim.node != before
    assert cluster.join(victim, cluster.hosts[1]).error is None
    assert cluster.run_until(cluster.sees_all, 10.0)
    assert cluster.run_until(lambda: runs(cluster, 4), 30.0)


@seeds
def test_who_expels_nobody_in_particular_is_told_so(seed: int) -> None:
    cluster = cluster_of(3, seed)
    assert "there is no node" in refusal(cluster.command(cluster.hosts[0], "expel", {"node": "n9"}))
    assert "does not expel itself" in refusal(cluster.command(cluster.hosts[0], "expel", {"node": "n0"}))
    cluster.answer(cluster.hosts[0], "expel", {"node": "n1"})
    cluster.run(2.0)
    cluster.answer(cluster.hosts[2], "expel", {"node": "n1"})
    assert len(events(cluster.hosts[0], "expelled")) == 1


# The root


@seeds
def test_a_new_root_reaches_everybody_and_nobody_is_suspected_on_the_way(seed: int) -> None:
    cluster = settled(cluster_of(6, seed), app(6))
    before = cluster.started()
    suspicions = {host.name: host.agent.swim.counters().get("suspicions", 0) for host in cluster.hosts if host.agent}
    old = root_of(cluster.hosts[0])
    cluster.answer(cluster.hosts[1], "rotate", {"overlap_s": 60.0})
    assert cluster.run_until(lambda: all(map(is_certified, cluster.hosts)), 20.0)
    assert {root_of(host) for host in cluster.hosts} != {old}
    assert len({root_of(host) for host in cluster.hosts}) == 1
    assert all(host.agent is not None and host.agent.standing.vouches for host in cluster.hosts)
    cluster.run(70.0)
    for host in cluster.hosts:
        assert host.agent is not None
        assert host.agent.swim.counters().get("suspicions", 0) == suspicions[host.name]
        assert len(host.agent.standing.ledger.trusted(1_700_000_000.0 + cluster.clock.now)) == 1
    assert cluster.started() == before


@seeds
def test_a_root_outlives_the_disk_of_who_named_it(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(5))
    named = cluster.answer(cluster.hosts[1], "rotate", {"overlap_s": 3600.0})["root"]
    cluster.kill(cluster.hosts[1])
    cluster.hosts[1].storage.wipe()
    others = [host for host in cluster.hosts if host is not cluster.hosts[1]]
    assert any(holds_secret(host, named) for host in others)
    assert cluster.run_until(lambda: all(is_certified(host) and root_of(host) == named for host in others), 20.0)
    assert all(host.agent is not None and host.agent.standing.vouches for host in others)


@seeds
def test_a_root_whose_secret_nobody_else_keeps_is_not_named_unless_it_is_urgent(seed: int) -> None:
    cluster = settled(cluster_of(4, seed), app(4))
    host, old = cluster.hosts[1], root_of(cluster.hosts[1])
    cluster.cut(host)
    refused = cluster.command(host, "rotate", {"overlap_s": 3600.0})  # It does not know yet that it is alone,
    assert "could be reached to keep the new root's secret" in refusal(refused)
    cluster.run(20.0)
    assert "n0, n2, n3" in refusal(cluster.command(host, "rotate", {"overlap_s": 3600.0}))  # and now it does.
    assert {root_of(other) for other in cluster.hosts} == {old}
    named = cluster.answer(host, "rotate", {"urgent": True})["root"]
    assert root_of(host) == named != old


@seeds
def test_who_is_left_alone_names_a_root_once_it_has_expelled_those_that_never_come_back(seed: int) -> None:
    cluster = settled(cluster_of(3, seed), app(1))
    host = cluster.hosts[1]
    for other in (cluster.hosts[0], cluster.hosts[2]):
        cluster.kill(other)
    cluster.run(20.0)
    assert "expel" in refusal(cluster.command(host, "rotate", {"overlap_s": 3600.0}))
    for name in ("n0", "n2"):
        cluster.answer(host, "expel", {"node": name})
    assert cluster.answer(host, "rotate", {"overlap_s": 3600.0})["root"] == root_of(host)


@pytest.mark.parametrize("is_heard", [True, False])
@seeds
def test_who_has_only_just_started_does_not_think_that_it_alone_vouches(seed: int, is_heard: bool) -> None:
    cluster = cluster_of(3, seed)
    host, others = cluster.hosts[0], cluster.hosts[1:]
    cluster.run(15.0)
    old = root_of(host)
    if not is_heard:
        cluster.cut(host)
    cluster.restart(host)
    reply = cluster.command(host, "rotate", {"overlap_s": 3600.0})
    if is_heard:
        assert any(holds_secret(other, str(reply.item["root"])) for other in others)
    else:
        assert "could be reached to keep the new root's secret" in refusal(reply)
        assert root_of(host) == old


@seeds
def test_a_root_that_is_named_right_after_another_one_is_kept_by_others_too(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(5))
    first = cluster.answer(cluster.hosts[1], "rotate", {"overlap_s": 3600.0})["root"]
    second = cluster.answer(cluster.hosts[1], "rotate", {"overlap_s": 3600.0})["root"]
    assert first != second
    cluster.kill(cluster.hosts[1])
    cluster.hosts[1].storage.wipe()
    others = [host for host in cluster.hosts if host is not cluster.hosts[1]]
    assert cluster.run_until(lambda: all(is_certified(host) and root_of(host) == second for host in others), 20.0)


@seeds
def test_that_somebody_keeps_a_secret_counts_only_from_who_was_asked(seed: int) -> None:
    cluster = settled(cluster_of(4, seed), app(1))
    host, old = cluster.hosts[1], root_of(cluster.hosts[1])
    cluster.cut(host)
    cluster.post(host, "rotate", {"overlap_s": 3600.0})
    cluster.run(1.0)
    agent = host.agent
    assert agent is not None
    secrets = [name for name in host.storage.load().records[Table.TRUST] if name.startswith("secret/")]
    assert len(secrets) == 2
    for name in secrets:
        said = Entrusted(bytes.fromhex(name.removeprefix("secret/")))
        agent._here.membership.succession.kept("f" * 32, said)
    cluster.run(1.0)
    assert root_of(host) == old


@seeds
def test_the_only_node_that_vouches_names_a_root_by_itself(seed: int) -> None:
    cluster = Cluster(3, seed)
    for host in cluster.hosts[1:]:
        host.vouches = False
    cluster.join_all()
    cluster.run(5.0)
    named = cluster.answer(cluster.hosts[0], "rotate", {"overlap_s": 3600.0})["root"]
    assert not any(holds_secret(host, named) for host in cluster.hosts[1:])
    assert cluster.run_until(lambda: all(map(is_certified, cluster.hosts)), 20.0)


@pytest.mark.parametrize(("order", "arguments"), [("admit", {"key": "1" * 64}), ("rotate", {})])
@seeds
def test_what_is_said_in_the_name_of_the_cluster_changes_nobody_s_advertisement(
    seed: int, order: str, arguments: dict[str, object]
) -> None:
    cluster = settled(cluster_of(8, seed), app(1))
    agents = [host.agent for host in cluster.hosts if host.agent is not None]
    before = [agent.swim.publication(agent.node) for agent in agents]
    cluster.answer(cluster.hosts[0], order, arguments)
    cluster.run(10.0)
    assert len({agent.standing.ledger.digest for agent in agents}) == 1
    assert all(agent.standing.ledger.ids and agent.standing.vouches for agent in agents)
    assert [agent.swim.publication(agent.node) for agent in agents] == before


@seeds
def test_a_new_root_s_secret_goes_from_node_to_node_and_who_does_not_have_it_yet_is_no_event(seed: int) -> None:
    cluster = cluster_of(24, seed)
    cluster.answer(cluster.hosts[0], "rotate", {"urgent": True})
    cluster.run(1.0)
    named = root_of(cluster.hosts[0])
    cluster.cut(cluster.hosts[0])
    others = cluster.hosts[1:]
    assert cluster.run_until(lambda: all(root_of(host) == named and is_certified(host) for host in others), 15.0)
    assert sum(host.agent.counters["members_sent_on"] for host in others if host.agent is not None) > 0
    assert not any("gave no certificate" in said for host in others for said in events(host, "trust"))


@seeds
def test_a_statement_that_no_news_of_came_is_found_by_the_next_ping(seed: int) -> None:
    cluster = settled(cluster_of(4, seed), app(1))
    cluster.cut(cluster.hosts[3])
    cluster.answer(cluster.hosts[0], "admit", {"key": "1" * 64})
    cluster.run(1.5)  # It is held alive yet, and news of it is told no more when it is back.
    cluster.heal()
    agent = cluster.hosts[3].agent
    assert agent is not None
    assert not agent.standing.ledger.operators
    assert cluster.run_until(lambda: bool(agent.standing.ledger.operators), 5.0)


@seeds
def test_two_rotations_at_once_merge_into_one_root(seed: int) -> None:
    cluster = settled(cluster_of(6, seed), app(6))
    cluster.partition(cluster.hosts[:3], cluster.hosts[3:])
    cluster.run(10.0)
    cluster.answer(cluster.hosts[0], "rotate", {"overlap_s": 3600.0})
    cluster.answer(cluster.hosts[5], "rotate", {"overlap_s": 3600.0})
    cluster.run(10.0)
    assert len({root_of(host) for host in cluster.hosts}) == 2
    cluster.heal()
    assert cluster.run_until(lambda: len({root_of(host) for host in cluster.hosts}) == 1, 40.0)
    assert cluster.run_until(lambda: all(map(is_certified, cluster.hosts)), 30.0)
    assert all(host.agent is not None and host.agent.standing.vouches for host in cluster.hosts)
    assert cluster.run_until(cluster.sees_all, 10.0)


@seeds
def test_a_node_that_does_not_vouch_gets_a_certificate_of_the_new_root_and_not_its_secret(seed: int) -> None:
    cluster = Cluster(3, seed)
    cluster.hosts[2].vouches = False
    cluster.join_all()
    assert cluster.run_until(cluster.sees_all, 10.0)
    cluster.run(2.0)
    cluster.answer(cluster.hosts[0], "rotate", {})
    assert cluster.run_until(lambda: all(map(is_certified, cluster.hosts)), 20.0)
    assert cluster.hosts[2].agent is not None
    assert not cluster.hosts[2].agent.standing.vouches
    assert cluster.hosts[1].agent is not None
    assert cluster.hosts[1].agent.standing.vouches


@seeds
def test_nobody_hears_of_a_root_before_it_is_on_a_disk(seed: int) -> None:
    cluster = settled(cluster_of(4, seed), app(4))
    host = cluster.hosts[1]
    host.storage.failing = "no space left on the disk"
    old = root_of(host)
    cluster.post(host, "rotate", {"overlap_s": 3600.0})
    cluster.cut(cluster.hosts[3])
    cluster.run(15.0)
    cluster.heal()
    cluster.run(15.0)
    assert {root_of(other) for other in cluster.hosts} == {old}
    cluster.kill(host, with_host=False)
    host.storage.failing = None
    cluster.start(host)
    cluster.run(15.0)
    assert {root_of(other) for other in cluster.hosts} == {old}
    cluster.answer(host, "rotate", {"overlap_s": 3600.0})
    assert cluster.run_until(lambda: all(map(is_certified, cluster.hosts)), 20.0)
    assert {root_of(other) for other in cluster.hosts} != {old}


@seeds
def test_who_was_away_while_several_roots_were_named_vouches_for_the_last_one(seed: int) -> None:
    cluster = settled(cluster_of(4, seed), app(4))
    away = cluster.hosts[3]
    cluster.kill(away)
    cluster.run(10.0)
    for host in cluster.hosts[:3]:
        cluster.answer(host, "rotate", {"overlap_s": 3600.0})
        cluster.run(10.0)
    cluster.start(away)

    def vouches() -> bool:
        assert away.agent is not None
        return root_of(away) == root_of(cluster.hosts[0]) and away.agent.standing.vouches and is_certified(away)

    assert cluster.run_until(vouches, 30.0)


@seeds
def test_who_was_cut_off_hears_of_a_new_root_as_soon_as_it_is_back(seed: int) -> None:
    cluster = settled(cluster_of(4, seed), app(1))
    cluster.cut(cluster.hosts[3])
    cluster.answer(cluster.hosts[0], "rotate", {"overlap_s": 3600.0})
    cluster.run(10.0)
    cluster.heal()
    assert cluster.run_until(cluster.sees_all, 40.0)
    assert cluster.run_until(lambda: len({root_of(host) for host in cluster.hosts}) == 1, 2.0)


@seeds
def test_what_returns_within_the_overlap_catches_up_and_later_it_needs_an_invitation(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(5))
    soon, late = cluster.hosts[3], cluster.hosts[4]
    for host in (soon, late):
        cluster.kill(host, with_host=False)
    cluster.run(15.0)
    away = cluster.answer(cluster.hosts[0], "rotate", {"overlap_s": 600.0})["away"]
    assert sorted(away) == ["n3", "n4"]
    cluster.run(30.0)
    cluster.start(soon)
    assert cluster.run_until(lambda: is_certified(soon), 30.0)
    cluster.run(700.0)
    cluster.start(late)
    cluster.run(30.0)
    assert late.agent is not None
    assert len(late.agent.alive) == 1
    assert any("invitation" in message for message in events(late, "trust"))
    assert "gary invite" in doctor(late, cluster)["certificate"]
    assert late.agent.deployments
    token = cluster.invite(cluster.hosts[0])
    cluster.answer(late, "join", {"token": token})
    assert cluster.run_until(cluster.sees_all, 20.0)
    assert is_certified(late)
    cluster.run(60.0)
    assert runs(cluster, 5)


@seeds
def test_a_stolen_root_is_left_within_half_a_minute_and_a_newcomer_gets_no_certificate(seed: int) -> None:
    cluster = settled(cluster_of(5, seed), app(5))
    answer = cluster.answer(cluster.hosts[0], "rotate", {"urgent": True})
    assert answer["until"] <= 1_700_000_000 + cluster.clock.now + 31
    assert cluster.run_until(lambda: all(map(is_certified, cluster.hosts)), 15.0)
    cluster.run(40.0)
    assert cluster.sees_all()
    assert runs(cluster, 5)


@pytest.mark.parametrize("overlap_s", [0.0, 59.0])
def test_an_overlap_in_which_nobody_could_get_a_certificate_is_refused(overlap_s: float) -> None:
    cluster = cluster_of(2, 1)
    assert "--no-overlap" in refusal(cluster.command(cluster.hosts[0], "rotate", {"overlap_s": overlap_s}))


@seeds
def test_statements_and_certificates_outlive_restarts(seed: int) -> None:
    cluster = cluster_of(4, seed)
    cluster.answer(cluster.hosts[0], "expel", {"node": "n3"})
    cluster.answer(cluster.hosts[0], "rotate", {})
    cluster.run(10.0)
    for host in cluster.hosts[:3]:
        assert is_certified(host)
        root = root_of(host)
        cluster.restart(host)
        cluster.run(2.0)
        assert host.agent is not None
        assert root_of(host) == root
        assert host.agent.standing.vouches
        assert cluster.hosts[3].node in host.agent.standing.ledger.expulsions


# Operators of the cluster


@seeds
def test_an_operator_that_was_admitted_commands_the_cluster_through_a_node_that_does_not_vouch(seed: int) -> None:
    cluster = Cluster(4, seed)
    cluster.hosts[1].vouches = False
    cluster.join_all()
    assert cluster.run_until(cluster.sees_all, 10.0)
    cluster.run(2.0)
    through = cluster.hosts[1]
    refused = refusal(cluster.command(through, "expel", {"node": "n3"}))
    assert "may not command the cluster" in refused
    assert "gary grant --cluster" in refused
    assert cluster.sees_all()
    key = refused.split("the key ")[1].split()[0]

    cluster.answer(cluster.hosts[0], "admit", {"key": key})
    cluster.run(1.0)
    assert cluster.answer(through, "expel", {"node": "n3"})["name"] == "n3"
    assert cluster.answer(through, "rotate", {})["root"]
    assert cluster.run_until(lambda: all(map(is_certified, cluster.hosts[:3])), 20.0)
    assert through.agent is not None
    [expulsion] = through.agent.standing.ledger.expulsions[cluster.hosts[3].node]
    assert expulsion.operator.hex() == key


@seeds
def test_who_joins_again_through_a_node_that_has_not_heard_of_its_root_shows_the_present_one_soon(seed: int) -> None:
    cluster = cluster_of(5, seed)
    back, behind = cluster.hosts[3], cluster.hosts[4]
    cluster.cut(behind)
    cluster.answer(back, "rotate", {"overlap_s": 3600.0})
    cluster.run(5.0)
    cluster.kill(back, with_host=False)
    peers = back.storage.load().records[Table.PEER]
    back.storage.write([DeleteRecord(Table.PEER, node) for node in peers])
    cluster.partition([back, behind], cluster.hosts[:3])
    cluster.start(back)
    cluster.run(1.0)
    assert cluster.join(back, behind).error is None
    cluster.heal()
    assert cluster.run_until(lambda: not liveness(cluster), 90.0, 1.0), liveness(cluster)
