"""What operators ask of a node, and how it is answered: here if this node holds the document, else by one that does."""

from gary.commands.operations import Commands

__all__ = ["Commands"]
