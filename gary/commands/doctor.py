"""Looking for what is wrong with this node's host: the disk is asked, and peers are asked what they see of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, Protocol

from gary import doctor
from gary.advertisements import PROTOCOL
from gary.advertising import Settings
from gary.cluster import Cluster
from gary.commands.command import Command
from gary.commands.host import Asking
from gary.deployment import Deployment
from gary.doctor import ClockFacts, DialFacts, DiskFacts, Facts, HealthFacts, PeerFacts, TrustFacts
from gary.engines import Engines
from gary.errors import CommandError, ErrorCode
from gary.identity import DeploymentId, NodeId
from gary.outbox import Outbox
from gary.trust.membership import Membership
from gary.trust.notary import YEARS
from gary.trust.standing import Standing
from gossip import Status, Swim

CLOCKS_MAX = 5
CLOCK_WAIT_S = 1.0
"""No longer than it takes until a request is repeated: nobody knows which of them an answer is to."""
DIALS_ASKED_MAX = 3
DIAL_WAIT_S = 4.0
DIALS_MAX = 4
"""So many addresses are dialled for others at a time."""
EXAMINATION_WAIT_S = 5.0
FAILURES_MAX = 4
FAILURE_LENGTH_MAX = 200

Item = Mapping[str, Any]


class Host(Asking, Protocol):
    """The node on the host that is examined."""

    settings: Settings
    swim: Swim
    cluster: Cluster
    engines: Engines
    outbox: Outbox
    standing: Standing
    membership: Membership
    deployments: dict[DeploymentId, Deployment]
    rng: random.Random

    def dial(self, address: str, dialled: Callable[[Sequence[str]], None]) -> None:
        """Connect to all ports of a node there and hang up; then ``dialled`` with what failed."""

    def inspect(self, seen: Callable[[DiskFacts], None]) -> None:
        """Look at the disk that has this node's state."""


class Doctor:
    """``doctor`` is what this node's operator asks, ``clock`` and ``dial_back`` what nodes then ask each other."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._dialling = 0

    def doctor(self, command: Command) -> None:
        _Examination(self._host, command.responder.end).begin()

    def clock(self, command: Command) -> None:
        command.responder.end({"at": self._host.clock.wall_s()})

    def dial_back(self, command: Command) -> None:
        """Only the address that membership has for whoever asks: nobody has others dialled by this node."""
        asker = self._host.swim.member(command.asker)
        if asker is None or asker.status is not Status.ALIVE:
            raise CommandError(ErrorCode.REFUSED, "only for a node that is alive, and at its own address")
        if self._dialling >= DIALS_MAX:
            raise CommandError(ErrorCode.UNAVAILABLE, "this node tries other addresses at the moment")
        self._dialling += 1

        def dialled(failures: Sequence[str]) -> None:
            self._dialling -= 1
            command.responder.end({"failures": list(failures)})

        self._host.dial(asker.address, dialled)


class _Examination:
    """Facts come in as they are answered; ``done`` with all findings once all have, or time is up."""

    def __init__(self, host: Host, done: Callable[[Item], None]) -> None:
        self._host = host
        self._done = done
        self._others = sorted(node for node in host.alive if node != host.node)
        self._disk = DiskFacts("the state directory", failure=f"it was not read within {EXAMINATION_WAIT_S:g} s")
        self._clocks: list[ClockFacts] = []
        self._dials: list[DialFacts] = []
        self._open = 0
        self._is_over = False

    def begin(self) -> None:
        host = self._host
        self._deadline = host.clock.after(EXAMINATION_WAIT_S, lambda now: self._finish())
        asked = host.rng.sample(self._others, min(CLOCKS_MAX, len(self._others)))
        self._open = 1 + len(asked) + len(asked[:DIALS_ASKED_MAX])
        host.inspect(self._inspected)
        for node in asked:
            self._ask(node, "clock", CLOCK_WAIT_S, self._told_time)
        for node in asked[:DIALS_ASKED_MAX]:
            self._ask(node, "dial_back", DIAL_WAIT_S, self._dialled_back)

    def _ask(self, node: NodeId, operation: str, wait_s: float, heard: Callable[[NodeId, float, Item], None]) -> None:
        """``heard`` with the moment at which it was asked."""
        asked_at = self._host.clock.now

        def settle(item: Item) -> None:
            heard(node, asked_at, item)
            self._settled()

        self._host.requests.ask(
            node,
            operation,
            {},
            asked_at,
            timeout_s=wait_s,
            heard=lambda item, last: settle(item),
            failed=lambda error: self._settled(),
        )

    def _inspected(self, disk: DiskFacts) -> None:
        self._disk = disk
        self._settled()

    def _told_time(self, node: NodeId, asked_at: float, item: Item) -> None:
        clock, at_s = self._host.clock, item.get("at")
        if isinstance(at_s, int | float) and isfinite(at_s):
            way_s = (clock.now - asked_at) / 2
            ahead_s = at_s + way_s - clock.wall_s()
            self._clocks.append(ClockFacts(self._host.cluster.display_name(node), ahead_s, way_s))

    def _dialled_back(self, node: NodeId, asked_at: float, item: Item) -> None:
        failures = item.get("failures")
        if isinstance(failures, list):
            texts = tuple(str(failure)[:FAILURE_LENGTH_MAX] for failure in failures[:FAILURES_MAX])
            self._dials.append(DialFacts(self._host.cluster.display_name(node), texts))

    def _settled(self) -> None:
        self._open -= 1
        if not self._open:
            self._finish()

    def _finish(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._host.clock.forget(self._deadline)
            self._done({"findings": [finding.to_json() for finding in doctor.examine(self._facts())]})

    def _facts(self) -> Facts:
        host = self._host
        failures = [host.outbox.failure, *(deployment.storage_failure for deployment in host.deployments.values())]
        return Facts(
            disk=self._disk,
            write_failure=next(filter(None, failures), ""),
            engines=host.engines.facts(),
            version=host.settings.version,
            protocol=PROTOCOL,
            unspoken=host.swim.counters().get("drop_version", 0),
            health=HealthFacts(host.swim.local_health, host.swim.counters().get("stalls", 0)),
            peers=tuple(self._peers()),
            clocks=tuple(sorted(self._clocks, key=lambda seen: seen.peer)) if self._others else None,
            address=host.swim.address,
            dials=tuple(sorted(self._dials, key=lambda seen: seen.peer)),
            trust=self._trust(),
        )

    def _trust(self) -> TrustFacts:
        host, ledger = self._host, self._host.standing.ledger
        wall_s, expulsions = host.clock.wall_s(), ledger.expulsions
        contested = {
            tuple(sorted((expulsions[node][0].name, expulsions[other][0].name)))
            for node in expulsions
            for other in ledger.opponents(node)
        }
        return TrustFacts(
            age_s=wall_s - host.standing.tls.made_s,
            lasts_s=YEARS * 365.25 * 86_400.0,
            is_present=host.standing.is_certified,
            vouches=host.standing.vouches,
            lacks_secret=host.standing.lacks_secret and host.settings.vouches,
            others_until_s=tuple(until_s - wall_s for until_s in ledger.until_s() if until_s > wall_s),
            is_refused=host.membership.is_left_behind,
            is_expelled=host.node in expulsions,
            expelled=tuple(sorted(said[0].name for said in expulsions.values())),
            contested=tuple((one, other) for one, other in sorted(contested)),
        )

    def _peers(self) -> list[PeerFacts]:
        host, found = self._host, []
        for member in host.swim.members():
            if member.node == host.node or member.status is Status.LEFT:
                continue
            profile = host.cluster.profile(member.node)
            name = host.cluster.display_name(member.node)
            since = None if member.status.live else host.clock.now - host.cluster.missing_since_s(member.node)
            known = (host.settings.version, PROTOCOL) if profile is None else (profile.version, profile.protocol)
            found.append(PeerFacts(name, *known, since))
        return sorted(found, key=lambda peer: peer.name)
