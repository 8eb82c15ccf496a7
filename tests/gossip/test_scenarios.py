"""Golden conversations: what nodes say to each other, as text under ``scenarios/``.

A scenario is a list of commands, each followed by what came of it, indented. Times are seconds since the start.

    nodes N        N nodes start, each alone in the same cluster
    join A B       A joins at the address of B
    run S          S seconds pass
    cut A          frames from and to A vanish; ``heal`` ends it, as it ends the next
    sever A B      frames between A and B vanish
    stall A S      the process of A stands still for S seconds
    copy A         the state directory of A, copied to another host, is started there
    kill A         the process of A ends; ``restart A`` starts it again with the peers it remembered
    leave A, advertise A NAME
    show X ...     from here on: ``events`` (what applications are told), ``news``, ``probes``, ``joins``, ``syncs``

After a change of behaviour, ``UPDATE_SCENARIOS=1 pytest tests/gossip/test_scenarios.py`` writes them anew; read the
diff.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gossip import (
    Advertisement,
    AdvertisementChanged,
    Claim,
    Effect,
    EpochRaised,
    IdentityConflict,
    Joined,
    JoinFailed,
    Lane,
    MemberChanged,
    Send,
    Status,
)
from gossip.directory import Publication
from gossip.messages import (
    Ack,
    Buckets,
    Join,
    Message,
    Nack,
    Ping,
    PingRequest,
    Records,
    Refuse,
    Versions,
    Wanted,
    Welcome,
    decode,
)
from simulations.swarm import Agent
from tests.gossip.harness import Network, node_id

COPIES = "10.9."
SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))
TOPICS: dict[str, tuple[type, ...]] = {
    "news": (Claim, Publication),
    "probes": (Ping, Ack, PingRequest, Nack),
    "joins": (Join, Welcome, Refuse),
    "syncs": (Buckets, Versions, Wanted, Records),
}


class Transcript(Network):
    """A network that writes down what is said and told."""

    def __init__(self) -> None:
        super().__init__(seed=1, delay_s=(0.001, 0.001))
        self.lines: list[str] = []
        self.shown: tuple[str, ...] = ("events",)
        self.start_at = self.now

    def perform(self, host: Agent, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._note_frame(host, effect)
            elif "events" in self.shown:
                told = self._event(effect)
                if told:
                    self._note(f"{self._label(host)} learns: {told}")
        super().perform(host, effects)

    def _note(self, text: str) -> None:
        self.lines.append(f"    {self.now - self.start_at:7.3f}  {text}")

    def _note_frame(self, host: Agent, send: Send) -> None:
        kinds = tuple(kind for topic in self.shown for kind in TOPICS.get(topic, ()))
        messages = decode(send.frame, self.config.frame_size_bytes_max).messages
        said = [self._message(message) for message in messages if isinstance(message, kinds)]
        if said:
            lane = " (bulk)" if send.lane is Lane.BULK else ""
            target = self._label(self._by_address[send.peer.address])
            self._note(f"{self._label(host)} -> {target}{lane}: {'; '.join(said)}")

    def _label(self, host: Agent) -> str:
        """Its number; a copy of a host has a stroke."""
        return f"{host.index}'" if host.address.startswith(COPIES) else str(host.index)

    def _number(self, node: str) -> int:
        return next(number for number in self.hosts if node_id(number) == node)

    def _event(self, effect: Effect) -> str:
        match effect:
            case MemberChanged():
                before = f" (was {effect.before})" if effect.before else " (new)"
                return f"{self._number(effect.member.node)} is {effect.member.status}{before}"
            case AdvertisementChanged():
                return f"{self._number(effect.node)} advertises"
            case Joined():
                return "joined"
            case IdentityConflict():
                return "somebody else lives under its id"
            case EpochRaised():
                return f"goes on in epoch {effect.epoch}"
            case JoinFailed():
                return f"join failed: {effect.reason} ({effect.detail})"
        return ""

    def _claim(self, claim: Claim) -> str:
        member = claim.member
        incarnation = f"{member.incarnation.epoch}.{member.incarnation.counter}"
        by = "".join(f" {self._number(accuser)}" for accuser in claim.accusers)
        said_by = f" say{by}" if member.status is Status.SUSPECT else ""
        return f"{self._number(member.node)} is {member.status} at {incarnation}{said_by}"

    def _publication(self, publication: Publication) -> str:
        version = f"{publication.version.epoch}.{publication.version.counter}"
        return f"{self._number(publication.node)} advertises {' '.join(publication.advertisement.names)} ({version})"

    def _message(self, message: Message) -> str:
        match message:
            case Claim():
                return self._claim(message)
            case Publication():
                return self._publication(message)
            case PingRequest():
                return f"ping {self._number(message.target)} for me"
            case Records():
                claims = [self._claim(claim) for claim in message.claims]
                return f"records [{', '.join(claims + [self._publication(p) for p in message.publications])}]"
            case Versions():
                return f"versions of {' '.join(str(self._number(version.node)) for version in message.versions)}"
            case Wanted():
                return f"wanted {' '.join(str(self._number(node)) for node in message.nodes)}"
            case Refuse():
                return f"refuse: {message.reason}"
        return type(message).__name__.lower()

    # Commands

    def nodes(self, count: str) -> None:
        for number in range(1, int(count) + 1):
            self.start(self.host(number))

    def join(self, joiner: str, member: str) -> None:
        host = self.hosts[int(joiner)]
        self.perform(host, host.swim.join(self.hosts[int(member)].address, self.now))

    def pass_time(self, duration_s: str) -> None:
        self.run(float(duration_s))

    def cut_off(self, *numbers: str) -> None:
        self.isolate(*(self.hosts[int(number)] for number in numbers))

    def sever(self, one: str, other: str) -> None:
        pair = {int(one), int(other)}
        self.cut = lambda sender, receiver: {sender, receiver} == pair

    def stall(self, number: str, duration_s: str) -> None:
        self.stand_still(self.hosts[int(number)], float(duration_s))

    def copy(self, number: str) -> None:
        host = self.hosts[int(number)]
        peers, epoch = host.swim.peers(), host.swim.incarnation.epoch
        twin = self.host(host.index, epoch=epoch, address=f"{COPIES}0.{number}:7946")
        host.is_up = True
        self.start(twin, peers)

    def kill_process(self, number: str) -> None:
        self.kill(self.hosts[int(number)])

    def start_again(self, number: str) -> None:
        old = self.hosts[int(number)]
        self.start(self.host(old.index, epoch=old.swim.incarnation.epoch + 1), old.swim.peers())

    def leave(self, number: str) -> None:
        host = self.hosts[int(number)]
        self.perform(host, host.swim.leave(self.now))

    def advertise(self, number: str, name: str) -> None:
        host = self.hosts[int(number)]
        self.perform(host, host.swim.advertise(Advertisement((name,), b""), self.now))

    def show(self, *topics: str) -> None:
        self.shown = topics

    def obey(self, command: str) -> None:
        """Carry out one line of a scenario."""
        name, *arguments = command.split()
        commands: dict[str, Callable[..., None]] = {
            "nodes": self.nodes,
            "join": self.join,
            "run": self.pass_time,
            "cut": self.cut_off,
            "heal": self.heal,
            "sever": self.sever,
            "stall": self.stall,
            "copy": self.copy,
            "kill": self.kill_process,
            "restart": self.start_again,
            "leave": self.leave,
            "advertise": self.advertise,
            "show": self.show,
        }
        commands[name](*arguments)


def replay(text: str) -> str:
    """The scenario again, with what comes of each command now."""
    transcript = Transcript()
    out: list[str] = []
    for line in text.splitlines():
        if line.startswith("    "):
            continue
        out.append(line)
        if line and not line.startswith("#"):
            transcript.lines = []
            transcript.obey(line)
            out += transcript.lines
    return "\n".join(out) + "\n"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_conversation_is_the_one_written_down(path: Path) -> None:
    written = path.read_text()
    now = replay(written)
    if os.environ.get("UPDATE_SCENARIOS"):
        path.write_text(now)
    assert now == written


def test_there_are_scenarios() -> None:
    assert SCENARIOS
