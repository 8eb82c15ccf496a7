"""What is wrong with a host, in plain words: facts in, findings out.

Each check looks at the facts that it needs and says what it found. To add one: a field in ``Facts``, whoever can fill
it, and a function in ``CHECKS``. Where a fact is not known there is no finding, so the command line can examine what it
sees of a host on which no agent runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

FREE_BYTES_LOW = 1024**3
FREE_BYTES_MIN = 64 * 1024**2
FREE_FILES_LOW = 10_000
FREE_FILES_MIN = 1_000
CLOCK_WARNING_S = 1.0
CLOCK_PROBLEM_S = 60.0
CERTIFICATE_LOW_S = 365 * 86_400.0
CERTIFICATE_MIN_S = 30 * 86_400.0
HEALTH_LOW = 2
"""A lost packet or two are nothing to speak of."""
NAMED_MAX = 5
_REINVITE = "'gary invite' on one of them, then 'gary join --token-file FILE' here: it keeps all that it has"


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What ``check`` came to. ``what`` is seen, ``why`` it matters, ``remedy`` is what to do about it."""

    check: str
    verdict: Verdict
    what: str
    why: str = ""
    remedy: str = ""

    def to_json(self) -> dict[str, object]:
        return {
            "check": self.check,
            "verdict": self.verdict.value,
            "what": self.what,
            "why": self.why,
            "remedy": self.remedy,
        }


# The facts


@dataclass(frozen=True, slots=True)
class SocketFacts:
    """Whether an agent answers there; ``what``: who, or what happened instead."""

    answers: bool
    what: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """The state directory. ``free_files`` None: its file system has no limit of them. ``exposed``: files and modes that
    others than the agent's user may use. ``failure``: why it cannot be looked at.
    """

    path: str
    free_bytes: int = 0
    free_files: int | None = None
    exposed: tuple[str, ...] = ()
    failure: str = ""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """A runtime. ``has_answered``: at any time since the agent's start. ``reason``: why it does not answer now."""

    name: str
    answers: bool
    has_answered: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """Another node. ``away_s``: for how long it has not been alive; None: it is."""

    name: str
    version: str
    protocol: int
    away_s: float | None = None


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """By how much the clock of ``peer`` is ahead of this host's; ``error_s``: how much of that may be the way there."""

    peer: str
    ahead_s: float
    error_s: float


@dataclass(frozen=True, slots=True)
class DialFacts:
    """What became of the connections that ``peer`` made to this node's address; ``failures``: one for each port."""

    peer: str
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrustFacts:
    """How the node stands in its cluster. ``age_s``: of its certificate, which is good for ``lasts_s``. ``is_present``:
    it is of the cluster's present root. ``others_until_s``: for how long other roots are trusted still. ``is_refused``:
    no peer trusts it. ``contested``: pairs of names that have expelled each other. ``lacks_secret``: it ought to vouch
    for the cluster, and its disk has lost what that takes.
    """

    age_s: float
    lasts_s: float
    is_present: bool
    vouches: bool
    others_until_s: tuple[float, ...] = ()
    is_refused: bool = False
    is_expelled: bool = False
    expelled: tuple[str, ...] = ()
    contested: tuple[tuple[str, str], ...] = ()
    lacks_secret: bool = False


@dataclass(frozen=True, slots=True)
class HealthFacts:
    """How well the node finds itself (``gossip.Swim.local_health``, 0 is well), and how often it stood still."""

    score: int
    stalls: int


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known. None: it is not."""

    socket: SocketFacts | None = None
    settings: tuple[str, ...] | None = None
    """What is wrong with them."""
    disk: DiskFacts | None = None
    write_failure: str | None = None
    """Why the last write failed; empty: it did not."""
    engines: tuple[EngineFacts, ...] | None = None
    version: str = ""
    protocol: int = 0
    unspoken: int | None = None
    """Frames of a protocol that this node does not speak."""
    peers: tuple[PeerFacts, ...] | None = None
    clocks: tuple[ClockFacts, ...] | None = None
    """None: there is nobody to compare with."""
    health: HealthFacts | None = None
    address: str = ""
    dials: tuple[DialFacts, ...] | None = None
    trust: TrustFacts | None = None


# The checks

Check = Callable[[Facts], Iterable[Finding]]


def agent(facts: Facts) -> Iterable[Finding]:
    seen = facts.socket
    if seen is not None and seen.answers:
        yield Finding("agent", Verdict.OK, seen.what)
    elif seen is not None:
        why = "without its agent a host runs on what it runs, and nobody looks after it"
        yield Finding("agent", Verdict.PROBLEM, seen.what, why, seen.remedy)


def settings(facts: Facts) -> Iterable[Finding]:
    if facts.settings:
        why = "an agent that is started without flags will end at once"
        yield Finding("settings", Verdict.PROBLEM, "; ".join(facts.settings), why, "'gary agent --help' lists them")
    elif facts.settings is not None:
        yield Finding("settings", Verdict.OK, "they can be read")


def disk(facts: Facts) -> Iterable[Finding]:
    seen = facts.disk
    if facts.write_failure:
        why = "what cannot be written is promised to nobody: this node takes on nothing and changes nothing"
        remedy = "make room or repair the disk; the agent goes on by itself"
        yield Finding("disk", Verdict.PROBLEM, f"writing fails: {facts.write_failure}", why, remedy)
    if seen is None:
        return
    if seen.failure:
        why = "the node's identity and its documents are there"
        yield Finding("disk", Verdict.PROBLEM, f"{seen.path}: {seen.failure}", why, "run this as the agent's user")
        return
    files = "" if seen.free_files is None else f" and {seen.free_files} files"
    what = f"{seen.path} has {_size(seen.free_bytes)}{files} free"
    low = _level(seen.free_bytes, FREE_BYTES_LOW, FREE_BYTES_MIN)
    few = Verdict.OK if seen.free_files is None else _level(seen.free_files, FREE_FILES_LOW, FREE_FILES_MIN)
    verdict = worst([low, few])
    if verdict is Verdict.OK:
        yield Finding("disk", verdict, what)
    else:
        yield Finding("disk", verdict, what, "a node with a full disk takes on nothing", "make room on it")


def privacy(facts: Facts) -> Iterable[Finding]:
    seen = facts.disk
    if seen is None or seen.failure:
        return
    if not seen.exposed:
        yield Finding("privacy", Verdict.OK, f"{seen.path} is for the agent's user alone")
        return
    why = "whoever can read the node's keys can be this node, and read what its containers are told"
    remedy = f"chmod -R go-rwx {seen.path}; if others have been on this host, expel the node and join anew"
    yield Finding("privacy", Verdict.PROBLEM, f"others may use {_named(seen.exposed)}", why, remedy)


def engines(facts: Facts) -> Iterable[Finding]:
    answering = [engine for engine in facts.engines or () if engine.answers]
    for engine in facts.engines or ():
        check = f"engine {engine.name}"
        reason = f": {engine.reason}" if engine.reason else ""
        if engine.answers:
            yield Finding(check, Verdict.OK, "it answers")
        elif answering and not engine.has_answered:
            why = f"this node runs only what {' or '.join(other.name for other in answering)} can run"
            remedy = f"start it, or say which runtimes there are: --runtime {answering[0].name}"
            yield Finding(check, Verdict.WARNING, f"it does not answer{reason}", why, remedy)
        else:
            why = "the node's slots there are given to others after 30 s"
            remedy = "start it, and let the agent's user use its socket; the agent needs no restart"
            yield Finding(check, Verdict.PROBLEM, f"it does not answer{reason}", why, remedy)


def clock(facts: Facts) -> Iterable[Finding]:
    if facts.clocks is None:
        return
    if not facts.clocks:
        yield Finding("clock", Verdict.OK, "no peer has told its time, so it cannot be compared")
        return
    median = sorted(facts.clocks, key=lambda seen: seen.ahead_s)[len(facts.clocks) // 2]
    off, error_s = median.ahead_s, median.error_s
    verdict = _level(-max(0.0, abs(off) - error_s), -CLOCK_WARNING_S, -CLOCK_PROBLEM_S)
    if verdict is not Verdict.OK:
        way = "behind" if off > 0 else "ahead of"
        what = f"it is {abs(off):.1f} s {way} the clocks of {_named_peers(facts.clocks)}"
        why = "of specs deployed at the same time the later clock wins, and certificates and invitations have times"
        yield Finding("clock", verdict, what, why, "let it be set by a time server: timedatectl set-ntp true")
        return
    strays = [seen for seen in facts.clocks if abs(seen.ahead_s) - seen.error_s > CLOCK_WARNING_S]
    if strays:
        what = f"right, but those of {_named([f'{seen.peer} ({seen.ahead_s:+.1f} s)' for seen in strays])} are not"
        yield Finding("clock", Verdict.WARNING, what, "theirs may be the ones that win", "'gary doctor' on those hosts")
        return
    yield Finding("clock", verdict, f"within {max(0.1, abs(off)):.1f} s of {_named_peers(facts.clocks)}")


def versions(facts: Facts) -> Iterable[Finding]:
    if facts.unspoken:
        what = f"{facts.unspoken} frames came in a protocol that is not spoken here"
        why = "nodes of different protocols do not understand each other"
        yield Finding("versions", Verdict.PROBLEM, what, why, "bring all nodes to one version: 'gary version'")
    if facts.peers is None:
        return
    here = [peer for peer in facts.peers if peer.away_s is None]
    others = [peer for peer in here if peer.protocol != facts.protocol]
    if others:
        what = f"{_named([f'{peer.name} (protocol {peer.protocol})' for peer in others])}, here {facts.protocol}"
        why = "nodes of different protocols may misunderstand each other"
        yield Finding("versions", Verdict.PROBLEM, what, why, "bring all nodes to one version: 'gary version'")
        return
    others = [peer for peer in here if peer.version != facts.version]
    if others:
        what = f"{_named([f'{peer.name} has {peer.version}' for peer in others])}, this node {facts.version}"
        yield Finding("versions", Verdict.WARNING, what, "fine during an upgrade only", "upgrade one node at a time")
    elif not facts.unspoken:
        yield Finding("versions", Verdict.OK, f"{facts.version} here" + (" and everywhere" if here else ""))


def health(facts: Facts) -> Iterable[Finding]:
    seen = facts.health
    if seen is None:
        return
    often = f"the agent stood still {_times(seen.stalls)} since its start" if seen.stalls else ""
    if seen.score > HEALTH_LOW:
        what = "peers do not answer, or suspect this node, where others are fine" + (f"; {often}" if often else "")
        why = "it is slower to notice deaths, and its word alone does not count"
        remedy = "is the host short of CPU, or its network lossy? top, ping; 'gary doctor' on another node"
        yield Finding("health", Verdict.WARNING, what, why, remedy)
    else:
        yield Finding("health", Verdict.OK, f"peers answer in time{f'; {often}' if often else ''}")


def address(facts: Facts) -> Iterable[Finding]:
    if facts.dials is None:
        return
    if not facts.dials:
        yield Finding("address", Verdict.OK, f"{facts.address}; there was no peer to try whether it can be reached")
        return
    failed = [seen for seen in facts.dials if seen.failures]
    if not failed:
        yield Finding("address", Verdict.OK, f"{facts.address} is reached by {_named_peers(facts.dials)}")
        return
    told = _named([f"{seen.peer} ({'; '.join(seen.failures)})" for seen in failed])
    what = f"{facts.address} cannot be reached by {told}"
    why = "peers that cannot connect hold this node dead, and replace what it runs"
    remedy = (
        "open the ports of agents in the firewalls between them; is it the address that others should use? --advertise"
    )
    verdict = Verdict.PROBLEM if len(failed) == len(facts.dials) else Verdict.WARNING
    yield Finding("address", verdict, what, why, remedy)


def members(facts: Facts) -> Iterable[Finding]:
    if facts.peers is None:
        return
    if not facts.peers:
        yield Finding("members", Verdict.OK, "this node is a cluster of one")
        return
    away = [peer for peer in facts.peers if peer.away_s is not None]
    here = len(facts.peers) - len(away)
    if not away:
        yield Finding("members", Verdict.OK, f"all {here} others are alive" if here > 1 else "the other one is alive")
        return
    what = f"away: {_named([f'{peer.name} (for {_duration(peer.away_s or 0.0)})' for peer in away])}"
    if here:
        remedy = "bring them back; those that are gone for good need nothing, they are forgotten after a while"
        yield Finding("members", Verdict.WARNING, what, f"{here} others are alive", remedy)
    else:
        why = "this node is alone: it replaces what it can, and nobody takes over from it"
        yield Finding("members", Verdict.PROBLEM, what, why, "is this host's network up? 'gary doctor' on another node")


def certificate(facts: Facts) -> Iterable[Finding]:
    seen = facts.trust
    if seen is None:
        return
    left_s = seen.lasts_s - seen.age_s
    if seen.is_refused:
        why = (
            "the cluster's root was probably changed while this node was away, for longer than the old one was trusted"
        )
        yield Finding("certificate", Verdict.PROBLEM, "the peers of this node refuse it", why, _REINVITE)
    elif left_s < CERTIFICATE_LOW_S:
        verdict = Verdict.PROBLEM if left_s < CERTIFICATE_MIN_S else Verdict.WARNING
        what = f"it ends in {_duration(left_s)}" if left_s > 0 else "it has ended"
        why = "peers refuse a certificate that has ended"
        yield Finding("certificate", verdict, what, why, "'gary rotate' on a node that vouches renews all of them")
    elif not seen.is_present:
        why = "it is refused once the old root is no longer trusted"
        remedy = "nothing, if this is seconds old; else see that a node that vouches is alive: 'gary nodes'"
        yield Finding("certificate", Verdict.WARNING, "it is of a root that was replaced", why, remedy)
    else:
        yield Finding("certificate", Verdict.OK, f"of the cluster's present root, good for {_duration(left_s)}")


def roots(facts: Facts) -> Iterable[Finding]:
    seen = facts.trust
    if seen is None:
        return
    if seen.lacks_secret:
        what = "this node ought to vouch for the cluster and has lost the secret that it takes"
        yield Finding("roots", Verdict.WARNING, what, "one node less can let others in", _REINVITE)
        return
    role = "this node vouches: it can let others in" if seen.vouches else "this node does not vouch"
    if not seen.others_until_s:
        yield Finding("roots", Verdict.OK, f"one is trusted; {role}")
        return
    what = f"an old one is trusted for {_duration(max(seen.others_until_s))} more; {role}"
    away = [peer.name for peer in facts.peers or () if peer.away_s is not None]
    if away:
        why = "who is not back by then needs an invitation"
        yield Finding("roots", Verdict.WARNING, what, why, f"bring back those who are away: {_named(away)}")
    else:
        yield Finding("roots", Verdict.OK, what)


def expulsions(facts: Facts) -> Iterable[Finding]:
    seen = facts.trust
    if seen is None:
        return
    if seen.is_expelled:
        why = "every other node refuses it; it keeps what it has, and takes on nothing"
        remedy = "'gary leave' stops all of that and makes it a new node, which can be invited"
        yield Finding("expulsions", Verdict.PROBLEM, "this node was expelled", why, remedy)
    for one, other in seen.contested:
        why = "two sides of a partition did that; both stand"
        remedy = "'gary leave' on either makes it a new node, which can be invited"
        yield Finding("expulsions", Verdict.WARNING, f"{one} and {other} have expelled each other", why, remedy)
    if not seen.is_expelled and not seen.contested:
        yield Finding("expulsions", Verdict.OK, f"out for ever: {_named(seen.expelled)}" if seen.expelled else "none")


CHECKS: tuple[Check, ...] = (
    *(agent, settings, engines, disk, privacy, clock, versions),
    *(certificate, roots, expulsions, address, members, health),
)


def examine(facts: Facts) -> list[Finding]:
    """What all checks find, in their order."""
    return [finding for check in CHECKS for finding in check(facts)]


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    return max(verdicts, key=list(Verdict).index, default=Verdict.OK)


def finding_from(value: Mapping[str, object]) -> Finding:
    """The inverse of ``Finding.to_json``, for the answer of an agent of any version."""
    check, verdict, what, why, remedy = (
        str(value.get(name, "")) for name in ("check", "verdict", "what", "why", "remedy")
    )
    return Finding(check, Verdict(verdict) if verdict in set(Verdict) else Verdict.WARNING, what, why, remedy)


def _level(amount: float, low: float, minimum: float) -> Verdict:
    return Verdict.PROBLEM if amount < minimum else Verdict.WARNING if amount < low else Verdict.OK


def _named_peers(seen: Sequence[ClockFacts] | Sequence[DialFacts]) -> str:
    return _named([one.peer for one in seen])


def _named(names: Sequence[str]) -> str:
    rest = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {rest} more" if rest > 0 else "")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _size(amount: int) -> str:
    return f"{amount / 1024**3:.1f} GiB" if amount >= 1024**3 else f"{amount / 1024**2:.0f} MiB"


def _duration(seconds: float) -> str:
    for unit, length in (("years", 31_557_600), ("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
