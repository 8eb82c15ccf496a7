"""Compose files: a file's text and an environment in, a canonical spec or every error with its line out.

This package belongs to the CLI's process; an agent never imports it.

How the parser was chosen. The index has ``compose-spec`` (0.2.1, bindings of a Rust crate), the JSON schema of the
specification, and PyYAML. Tried on the files that Docker Compose takes, ``compose-spec``

- refuses valid ones: merge keys (``<<``), ``restart: on-failure:3``, ``~/data:/data``, images with tag and digest,
  ``1.5g``, ``replicas: "3"``, ``user: 1000``;
- takes wrong ones (``80:80/icmp``, an unbalanced quote in a command, any text as constraint, capability or network
  mode) and drops keys without a word (``create_host_path``, ``env_file.format``);
- reports only the first error, replaces no variables, and loads pydantic (0.3 s at each start).

The JSON schema knows types and names, but no lines, no short syntaxes and no reasons. So the text is read as YAML
events by PyYAML (``tree``), which keeps the place of every key; variables are replaced as Compose does
(``interpolation``, ``dotenv``); one table says of each key of the specification whether it is honoured (``keys``); and
each value is read by the rules of the specification (``values``, ``mounts``, ``service``). Scalars keep the text that
the file shows: ``1.10`` stays ``1.10``, where Compose makes it ``1.1``.
"""

from gary.compose.application import default_name, load
from gary.compose.errors import ComposeError, ComposeErrors

__all__ = ["ComposeError", "ComposeErrors", "default_name", "load"]
