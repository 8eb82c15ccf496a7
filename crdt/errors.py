"""What can go wrong, told apart by whose fault it is.

Every exception says whether state changed: none of these leaves a replica altered.
"""

from __future__ import annotations


class CrdtError(Exception):
    """Base of everything this package raises on purpose."""


class CorruptReplica(CrdtError):
    """Stored bytes are not a replica of this skeleton; the message says what is wrong. Nothing was loaded."""


class WriteRefused(CrdtError):
    """Our caller asked for a write that no replica would accept (size, key, unknown map). Nothing was written."""


class LibraryFailed(CrdtError):
    """Automerge failed at something it was asked correctly to do. The replica is as it was before."""


class MalformedChange(CrdtError):
    """Bytes that claim to be a change and are not one that this package would ever write."""


class MalformedMessage(CrdtError):
    """Bytes from a peer that are no message of the exchange."""
