"""How large a spec and its parts may be. They bound what one deployment can cost every member that holds it."""

from __future__ import annotations

import re
from typing import Final

SIZE_BYTES_MAX: Final = 1 << 20
SERVICES_MAX: Final = 256
REPLICAS_MAX: Final = 10_000
RESILIENCE_DEFAULT: Final = 3
RESILIENCE_MAX: Final = 128
"""A document has at most 128 members."""

ITEMS_MAX: Final = 4096
"""Entries of one list or map (arguments, variables, labels, ports, mounts)."""
TEXT_MAX: Final = 131_072
"""Characters of one text; Linux takes no longer argument or variable."""
WORD_MAX: Final = 4096
"""Characters of a name-like text: an image, a path, a user."""

CPUS_MAX: Final = 65_536.0
BYTES_MAX: Final = 1 << 60
COUNT_MAX: Final = 1 << 31
SECONDS_MAX: Final = 366 * 86_400.0

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
NAME_RULE: Final = "1 to 63 of a-z, 0-9, _ and -, and begins with a letter or a digit"
RESERVED_SERVICES: Final = frozenset({"witness"})
"""The slots ``witness/i`` are Gary's own."""

PROTOCOLS: Final = ("tcp", "udp", "sctp")
NETWORK_MODES: Final = ("bridge", "host", "none")
CAPABILITY: Final = re.compile(r"[A-Z0-9_]{1,64}")
VARIABLE: Final = re.compile(r"[^=\x00]{1,4096}")
CONSTRAINT_ATTRIBUTE: Final = re.compile(r"node\.(?:id|hostname|labels\.[A-Za-z0-9._/-]{1,255})")
