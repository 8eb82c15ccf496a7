"""What can go wrong with a runtime. ``str(error)`` is a plain sentence that can stand as a slot's reason.

Nothing else leaves a runtime: what an engine, a socket or the disk throws is translated where it enters.
"""

from __future__ import annotations

from collections.abc import Sequence


class RuntimeFailure(Exception):
    """The runtime could not do what it was asked. State is as it was before, unless a subclass says otherwise."""


class UnknownRuntime(RuntimeFailure):
    """No installed runtime has this name."""

    def __init__(self, name: str, installed: Sequence[str]) -> None:
        super().__init__(f"there is no runtime called {name!r}; installed are: {', '.join(installed) or 'none'}")
        self.name = name
        self.installed = tuple(installed)


class EngineUnavailable(RuntimeFailure):
    """The engine does not answer, or did not in time. Whether the operation took effect is not known; repeat it."""

    def __init__(self, runtime: str, detail: str) -> None:
        super().__init__(f"the {runtime} engine does not answer: {detail}")
        self.runtime = runtime
        self.detail = detail


class ImageMissing(RuntimeFailure):
    """The image is neither on this host nor to be pulled; ``detail`` is what the engine said."""

    def __init__(self, image: str, detail: str) -> None:
        super().__init__(f"the image {image!r} is not on this host and cannot be pulled: {detail}")
        self.image = image
        self.detail = detail


class NameTaken(RuntimeFailure):
    """A container that is not ours has the name. It was not touched."""

    def __init__(self, name: str) -> None:
        super().__init__(f"another container on this host, which is not Gary's, has the name {name!r}")
        self.name = name


class PortTaken(RuntimeFailure):
    """A host port that the service fixes is in use on this host. Nothing of the container is left."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"a host port that the service asks for is in use: {detail}")
        self.detail = detail


class StartRefused(RuntimeFailure):
    """The runtime will not or cannot run this; ``detail`` is why. Nothing of the container is left."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"the runtime refused to start it: {detail}")
        self.detail = detail


class StopFailed(RuntimeFailure):
    """It could not be stopped or removed; ``detail`` is why. It may still run; repeat it."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"the container could not be stopped: {detail}")
        self.detail = detail


class ContainerMissing(RuntimeFailure):
    """There is no container with this id (any more)."""

    def __init__(self, container_id: str) -> None:
        super().__init__(f"there is no container {container_id!r} on this host")
        self.container_id = container_id
