"""An operator: gives commands to whatever agent is at hand, and gets them to a node that can carry them out.

The agent at hand may be hostile, and so may be any node that says that it holds a deployment. So the first one is told
pseudonyms, no names; the other one has to say the operator's watchword before it is told anything; and what passes
between the operator and that node is in envelopes.

This does no IO: an ``Ask`` puts an operation to the agent at hand. The command line and the simulation have one each.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gary.errors import CommandError, ErrorCode, error_in
from gary.identity import NodeId, pseudonym

if TYPE_CHECKING:
    from gary.trust.envelope import Entropy
    from gary.trust.keys import KeyPair

HELLO_WAIT_S = 3.0
ORDER_WAIT_S = 30.0
AT_FOUNDING = "deploy"
CLUSTER_ORDERS = ("expel", "rotate", "admit")
ASKED_OF_THE_NEXT = (ErrorCode.UNAVAILABLE, ErrorCode.NOT_FOUND, ErrorCode.ELSEWHERE)
"""What one node cannot do another may: who vouches may not have the secret of a new root yet."""

Json = dict[str, Any]
Ask = Callable[[str, Mapping[str, Any]], Iterator[Mapping[str, Any]]]
"""Puts an operation with its arguments to the agent at hand; the items of the answer, or ``CommandError``."""
Outcome = Json | CommandError
Each = Callable[[Callable[[Mapping[str, Any]], Outcome], Sequence[Mapping[str, Any]]], Iterable[Outcome]]
"""``map``, or something that does the same on several threads."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A node that says that it holds a deployment, and what is needed to write to it alone."""

    node: NodeId
    key: bytes
    epoch: int
    name: str


class Operator:
    """``load()`` gives the operator's key pair; it is asked for when it is needed. ``wall_s()``: since 1970."""

    def __init__(
        self,
        load: Callable[[], KeyPair],
        entropy: Entropy,
        wall_s: Callable[[], float],
        ask: Ask,
        each: Each = map,
    ) -> None:
        self._load = load
        self._entropy = entropy
        self._wall_s = wall_s
        self._ask = ask
        self._each = each

    @cached_property
    def key(self) -> KeyPair:
        return self._load()

    @cached_property
    def cluster(self) -> bytes:
        """The id of the cluster of the agent at hand."""
        (answer,) = self._ask("version", {})
        try:
            return bytes.fromhex(str(answer.get("cluster")))
        except ValueError as error:
            message = "the agent does not say which cluster it is in"
            raise CommandError(ErrorCode.INTERNAL, message, "is it older than this command?") from error

    def credential(self, name: str) -> str:
        """What this operator gives to those who are to obey it about the deployment called ``name``."""
        from gary.trust.credentials import credential

        return str(credential(self.key, name, self.cluster))

    def command(self, operation: str, arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """The items of the answer, from a node that can give it. Raises ``CommandError``."""
        name = _name_in(operation, arguments)
        if operation == "ps":
            (answer,) = self._ask(operation, arguments)
            yield self._census(answer)
        elif name:
            yield from self._about(name, operation, arguments)
        else:
            yield from self._about_cluster(operation, arguments)

    def _about_cluster(self, operation: str, arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """What the agent at hand answers, or a node that vouches, which is trusted with what concerns the cluster."""
        try:
            yield from self._ask(operation, arguments)
            return
        except CommandError as error:
            if error.code is not ErrorCode.ELSEWHERE or operation not in CLUSTER_ORDERS:
                raise
            found = error.details
        yield from self._order(found, operation, "", "", arguments)

    def _about(self, name: str, operation: str, arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """What the members of the deployment called ``name`` answer."""
        app = pseudonym(name, self.cluster)
        if operation == AT_FOUNDING:
            (found,) = self._ask("holders", {"app": app})
            if found.get("here") is not True and found.get("holders"):
                yield from self._redeploy(app, name, found, arguments)
            else:
                yield from self._ask(operation, {**arguments, "operator": self.credential(name)})
            return
        try:
            yield from self._ask(operation, {**arguments, "app": app})
            return
        except CommandError as error:
            if error.code is not ErrorCode.ELSEWHERE:
                raise
            found = error.details
        rest = {key: value for key, value in arguments.items() if key != "app"}
        yield from self._order(found, operation, app, name, rest)

    def _redeploy(
        self, app: str, name: str, found: Mapping[str, Any], arguments: Mapping[str, Any]
    ) -> Iterator[Mapping[str, Any]]:
        try:
            yield from self._order(found, AT_FOUNDING, app, name, arguments)
        except CommandError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            message = f"those that held {name!r} let go of it just now"
            raise CommandError(ErrorCode.CONFLICT, message, "try again in a moment") from error

    def _census(self, answer: Mapping[str, Any]) -> Json:
        """The answer to ``ps``, with what the members of the deployments elsewhere tell this operator about them.

        ``withheld``: the ids of those that it may not command.
        """
        elsewhere = [place for place in answer.get("elsewhere", ()) if isinstance(place, Mapping)]
        found = [dict(summary) for summary in answer.get("deployments", ())]
        unanswered = [str(id) for id in answer.get("unanswered", ())]
        withheld: list[str] = []
        for place, outcome in zip(elsewhere, self._each(self._summary, elsewhere), strict=True):
            if not isinstance(outcome, CommandError):
                found.append(outcome)
            elif outcome.code is ErrorCode.REFUSED:
                withheld.append(str(place.get("deployment")))
            elif outcome.code is not ErrorCode.NOT_FOUND:
                unanswered.append(str(place.get("deployment")))
        ordered = sorted(found, key=lambda summary: str(summary.get("name")))
        return {"deployments": ordered, "unanswered": sorted(unanswered), "withheld": sorted(withheld)}

    def _summary(self, place: Mapping[str, Any]) -> Outcome:
        try:
            *_, last = self._order(place, "summary", str(place.get("deployment")), "", {})
        except CommandError as error:
            return error
        return dict(last)

    # Envelopes

    def _order(
        self, found: Mapping[str, Any], operation: str, deployment: str, name: str, arguments: Mapping[str, Any]
    ) -> Iterator[Mapping[str, Any]]:
        """Order it of the first holder in ``found`` that shows that it is one. ``deployment`` empty: it is about the
        cluster; ``name`` empty: the holder says which name it is.
        """
        failures: list[CommandError] = []
        for holder in _holders(found):
            is_begun = False
            try:
                if deployment:
                    self._greet(holder, deployment, name)
            except CommandError as error:
                # Whatever it is, nobody has shown yet that it comes from a member.
                failures.append(error)
                continue
            try:
                for item in self._send(holder, operation, deployment, arguments, ORDER_WAIT_S):
                    is_begun = True
                    yield item
                return
            except CommandError as error:
                if is_begun or error.code not in ASKED_OF_THE_NEXT:
                    raise
                failures.append(error)
        failure = _most_telling(failures)
        if found.get("removed") is True and failure.code in (ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT):
            message = "it was removed, and what is left of it is with nodes that have not heard of that yet"
            raise CommandError(ErrorCode.NOT_FOUND, message, "'gary ps' lists what there is")
        raise failure

    def _greet(self, holder: Holder, deployment: str, name: str) -> None:
        """Raises ``CommandError`` unless ``holder`` says the watchword."""
        from gary.trust.credentials import credential

        *_, answer = self._send(holder, "hello", deployment, {}, HELLO_WAIT_S)
        said = str(answer.get("name", ""))
        watchword = credential(self.key, name or said, self.cluster).watchword
        if answer.get("watchword") != watchword or (name and said != name):
            message = f"{holder.name} says that it holds the deployment, and does not know this key's watchword for it"
            hint = "it may lie; or this key was granted with a wrong one: 'gary key APP' prints what is to be granted"
            raise CommandError(ErrorCode.UNAVAILABLE, message, hint)

    def _send(
        self, holder: Holder, operation: str, deployment: str, arguments: Mapping[str, Any], wait_s: float
    ) -> Iterator[Mapping[str, Any]]:
        from gary.trust.envelope import BadEnvelope, write_order

        try:
            sent = write_order(
                self.key,
                holder.key,
                deployment=deployment,
                node=holder.node,
                epoch=holder.epoch,
                at_s=self._wall_s(),
                operation=operation,
                arguments=arguments,
                entropy=self._entropy,
            )
            relayed = {
                "node": holder.node,
                "envelope": base64.b64encode(sent.envelope).decode(),
                "timeout_s": wait_s,
            }
            for answer in self._ask("relay", relayed):
                if "sealed" not in answer:
                    continue  # It says that some did not fit; the numbers of the others show it, too.
                item = sent.open(_bytes(answer["sealed"]))
                if item.lost:
                    yield {"lost": item.lost}
                failure = error_in(item.content)
                if failure is not None:
                    raise failure
                if item.content:
                    yield item.content
        except BadEnvelope as error:
            message = f"what passed between this command and {holder.name} was changed on the way: {error}"
            hint = "the agent on this host, or that node, is not what it seems"
            raise CommandError(ErrorCode.INTERNAL, message, hint) from error
        if not sent.is_answered:
            message = f"the answer of {holder.name} broke off"
            raise CommandError(ErrorCode.UNAVAILABLE, message, "it may have been done: look, then try again")


def _name_in(operation: str, arguments: Mapping[str, Any]) -> str:
    """The deployment that a command is about; empty if it is about none."""
    if operation != AT_FOUNDING:
        return str(arguments.get("app") or "")
    spec = arguments.get("spec")
    return str(spec.get("name") or "") if isinstance(spec, Mapping) else ""


def _holders(found: Mapping[str, Any]) -> list[Holder]:
    """The nodes that an agent names; what it says of one that cannot be is passed over."""
    from gary.trust.keys import node_id_of

    holders: list[Holder] = []
    for one in found.get("holders", ()):
        match one:
            case {"node": str(node), "key": str(key), "epoch": int(epoch), "name": str(name)}:
                public = _public(key)
                if node_id_of(public) == node:
                    holders.append(Holder(node, public, epoch, name))
    return holders


def _public(key: str) -> bytes:
    try:
        return bytes.fromhex(key)
    except ValueError:
        return b""


def _bytes(sealed: object) -> bytes:
    try:
        return base64.b64decode(sealed, validate=True) if isinstance(sealed, str) else b""
    except (binascii.Error, ValueError):
        return b""


def _most_telling(failures: Sequence[CommandError]) -> CommandError:
    """Of why one holder after the other could not be used: that something is unavailable tells more than that it is
    not there, and that it is refused tells most.
    """
    order = (ErrorCode.REFUSED, ErrorCode.TIMEOUT, ErrorCode.UNAVAILABLE)
    ranked = sorted(failures, key=lambda failure: order.index(failure.code) if failure.code in order else len(order))
    if ranked:
        return ranked[0]
    return CommandError(ErrorCode.UNAVAILABLE, "no node that holds the deployment can be reached", "try again")
