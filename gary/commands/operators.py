"""Who may command a deployment from outside of its members, and how an operator knows that it talks to one of them."""

from __future__ import annotations

from typing import Protocol

from gary.clock import Clock
from gary.commands.command import Command
from gary.commands.host import Heard, has_to_be_heard
from gary.deployment import Deployment
from gary.errors import CommandError, ErrorCode
from gary.trust.credentials import BadCredential, Credential, read_credential, read_key

OPERATORS_MAX = 64
GRANTS_MAX = 256
"""What was revoked is remembered, too, as long as the instance lives."""


class Host(Heard, Protocol):
    """The node that is told who may."""

    clock: Clock

    def tell(self, kind: str, message: str, *, deployment: str = "") -> None: ...


class OperatorCommands:
    """Any member may write down who is granted what, and those who are granted something may grant."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def grant(self, command: Command, deployment: Deployment) -> None:
        state = deployment.state
        assert state.effective is not None
        has_to_be_heard(self._host)
        now, draft, instance = self._host.clock.now, deployment.document.draft(), state.effective.instance
        if command.says("revoke"):
            key = _key(command.text("operator"))
            self._may_revoke(command, deployment, key)
            for granted_in, operator in state.grants:
                if operator == key and granted_in not in state.removed:
                    draft.revoke(granted_in, key)
        else:
            credential = credential_in(command)
            key = credential.key
            _has_room(deployment, key)
            draft.grant(instance, key, credential.watchword)
        self._host.tell("grant", f"{_done(command)} the key {key.hex()}", deployment=deployment.name)
        answer = {"name": deployment.name, "operator": key.hex(), "granted": not command.says("revoke")}
        deployment.write(draft, now, lambda at: command.responder.end(answer))
        deployment.evaluate(now)

    def _may_revoke(self, command: Command, deployment: Deployment, key: bytes) -> None:
        operators = deployment.state.operators
        if key not in operators:
            message = f"the key {key.hex()} may not command {deployment.name!r} anyway"
            raise CommandError(ErrorCode.NOT_FOUND, message, "'gary status' lists the keys that may")
        if len(operators) == 1 and command.operator:
            message = f"{key.hex()} is the only key that may command {deployment.name!r}: nobody could grant another"
            hint = "grant another one first; or give the command on a node that holds the deployment"
            raise CommandError(ErrorCode.REFUSED, message, hint)

    def hello(self, command: Command, deployment: Deployment) -> None:
        """Prove to an operator, before it says anything, that this node holds what the operator asks about."""
        watchword = deployment.state.operators[command.operator].watchword
        command.responder.end({"name": deployment.name, "watchword": watchword})


def _done(command: Command) -> str:
    return "revoked" if command.says("revoke") else "granted"


def _has_room(deployment: Deployment, key: bytes) -> None:
    state = deployment.state
    known = {operator for _, operator in state.grants}
    if key not in state.operators and (len(state.operators) >= OPERATORS_MAX or len(known | {key}) > GRANTS_MAX):
        message = f"{deployment.name!r} has {len(state.operators)} operators, and {len(known)} keys ever had a say"
        hint = f"at most {OPERATORS_MAX} and {GRANTS_MAX} are kept; let several people use one key"
        raise CommandError(ErrorCode.REFUSED, message, hint)


def credential_in(command: Command) -> Credential:
    """The credential that a command gives. Raises ``CommandError``."""
    try:
        return read_credential(command.text("operator"))
    except BadCredential as error:
        hint = "its owner gets what can be granted from 'gary key APP'"
        raise CommandError(ErrorCode.BAD_REQUEST, str(error), hint) from error


def _key(text: str) -> bytes:
    try:
        return read_key(text)
    except BadCredential as error:
        raise CommandError(ErrorCode.BAD_REQUEST, str(error), "'gary status' lists the keys that may") from error
