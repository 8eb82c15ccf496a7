"""``gary demo``: five agents on one machine, one of them killed, all of it watched and then cleared away."""

from gary.cli.demo.command import add_to

__all__ = ["add_to"]
