"""A transport for Gary on gRPC. Each connection carries one stream in both directions: one lane between two nodes.

The client says who it is, the server answers with its own name, and each message after that is one frame. With
credentials nobody's word is taken: the server reads the common name in the client's certificate, and the client dials
the node id that it means as the name of the server, which is an alternative name in that node's certificate. Where it
knows only an address it asks there for the name, and then dials whoever was named.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from functools import partial
from typing import TypeAlias

import grpc
import grpc.aio

from gossip.errors import PeerUnreachable, TransportError
from gossip.streams import StreamTransport
from gossip.transport import NOT_TRUSTED, SERVER_NAME, Credentials, Lane, TransportConfig

DIAL_TIMEOUT_S = 2.0
SERVICE = "/gary/"
ASK = "ASK"
"""The method that only tells who lives at an address. The others are the names of the lanes."""
NODE, MEANT = "node", "meant"
"""What who dials says of itself, and to whom it wants to speak; empty if it only has an address."""
OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.so_reuseport", 0),  # By default two servers may share a port, and no address is ever taken.
    ("grpc.use_local_subchannel_pool", 1),  # By default a dial may get what is left of an earlier one.
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 10_000),  # TCP alone takes minutes to notice that a host is gone, or back.
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
]

Call: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


@contextlib.contextmanager
def breaking() -> Iterator[None]:
    """What gRPC raises on a stream that has ended, in Python's terms."""
    try:
        yield
    except (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError) as error:
        raise ConnectionError(str(error)) from error


class GrpcWire:
    """A stream. Who dialled has a connection (gRPC's word is channel) for it alone; the other side's end is over when
    the method that serves it returns.
    """

    def __init__(self, stream: Call | Context, channel: grpc.aio.Channel | None = None) -> None:
        self._stream = stream
        self._channel = channel

    async def read(self) -> bytes | None:
        with breaking():
            message = await self._stream.read()
        return message if isinstance(message, bytes) else None

    async def write(self, message: bytes) -> None:
        with breaking():
            await self._stream.write(message)

    async def finish(self) -> None:
        if isinstance(self._stream, grpc.aio.StreamStreamCall):
            await self._stream.done_writing()

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()


def said(context: Context, name: str) -> str:
    """What who dialled says in its metadata; nothing is proven by it."""
    return str(dict(context.invocation_metadata() or ()).get(name, ""))


class GrpcTransport(StreamTransport, grpc.GenericRpcHandler):
    """``gossip.transport.Transport`` on gRPC."""

    def __init__(self, config: TransportConfig) -> None:
        super().__init__(config)
        # gRPC breaks off a stream for a message that is larger; one that is a little too large is only dropped.
        self._options = [*OPTIONS, ("grpc.max_receive_message_length", config.frame_size_bytes_max + 64 * 1024)]
        self._server: grpc.aio.Server | None = None

    # Listening

    async def listen(self, bind: str) -> int:
        server = grpc.aio.server(handlers=[self], options=self._options)
        try:
            port = self._bind(server, bind)
        except RuntimeError as error:
            raise TransportError(f"cannot listen at {bind}: {error}") from error
        await server.start()
        self._server = server
        return port

    async def hang_up(self, patience_s: float) -> None:
        if self._server is not None:
            await self._server.stop(patience_s or None)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """gRPC asks who serves a method. Without serializers, messages are bytes."""
        method = handler_call_details.method.removeprefix(SERVICE)
        if method == ASK:
            return grpc.stream_stream_rpc_method_handler(self._answer)
        if method in Lane.__members__:
            return grpc.stream_stream_rpc_method_handler(partial(self._serve, Lane[method]))
        return None

    async def _answer(self, _: object, context: Context) -> str:
        """Tell who is here, and return who asks. Those who are refused get no further."""
        node = self._who_asks(context)
        if not node or not self.admits(node):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "refused")
        if said(context, MEANT) not in ("", self.config.node):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"another node answers there: {self.config.node}")
        await context.write(self.config.node.encode())
        return node

    async def _serve(self, lane: Lane, requests: object, context: Context) -> None:
        with contextlib.suppress(grpc.aio.BaseError):  # Whoever asked is gone.
            node = await self._answer(requests, context)
            await self.accept(node, context.peer(), lane, GrpcWire(context))

    # Dialling

    async def ask(self, address: str) -> str:
        channel, _, node = await self._call(address, "", ASK)
        await channel.close()
        return node

    async def dial(self, address: str, node: str, lane: Lane) -> GrpcWire:
        channel, call, _ = await self._call(address, node, lane.name)
        return GrpcWire(call, channel)

    async def _call(self, address: str, node: str, method: str) -> tuple[grpc.aio.Channel, Call, str]:
        """A connection to ``node``, or to whoever is there, a stream on it, and the name that the other side gives."""
        channel = self._channel(address, node or SERVER_NAME)
        call: Call = channel.stream_stream(SERVICE + method)(metadata=((NODE, self.config.node), (MEANT, node)))
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                name = await call.read()
            if isinstance(name, bytes):
                return channel, call, name.decode(errors="replace")
            reason = "it hung up"
        except grpc.aio.AioRpcError as error:
            reason = self._reason(error.details() or "")
        except TimeoutError:
            reason = "timed out"
        except asyncio.CancelledError:
            await channel.close()
            raise
        await channel.close()
        raise PeerUnreachable(reason)

    # Who is who

    async def check(self, credentials: Credentials) -> None:
        """gRPC looks at credentials when it binds a port, which it lets go of when the server has run."""
        server = grpc.aio.server()
        try:
            server.add_secure_port("localhost:0", _of_server(credentials))
        except RuntimeError as error:
            raise TransportError("the credentials cannot be used: gRPC does not say why") from error
        await server.start()
        await server.stop(None)

    def _bind(self, server: grpc.aio.Server, bind: str) -> int:
        if self.config.credentials is None:
            return server.add_insecure_port(bind)
        return server.add_secure_port(bind, _of_server(self.config.credentials))

    def _who_asks(self, context: Context) -> str:
        if self.config.credentials is None:
            return said(context, NODE)
        names = tuple(context.auth_context().get("x509_common_name", ()))
        return names[0].decode(errors="replace") if len(names) == 1 else ""

    def _channel(self, address: str, server: str) -> grpc.aio.Channel:
        credentials = self.config.credentials
        if credentials is None:
            return grpc.aio.insecure_channel(address, self._options)
        options = [*self._options, ("grpc.ssl_target_name_override", server)]
        return grpc.aio.secure_channel(address, _of_client(credentials), options)

    def _reason(self, details: str) -> str:
        if self.config.credentials is None:
            return details
        if "Hostname Verification" in details:
            return "another node answers there, or none"
        if "handshake failed" in details or "Socket closed" in details:
            return f"{NOT_TRUSTED}: its certificate or this node's own is refused, or it does not speak TLS"
        return details


def _of_server(credentials: Credentials) -> grpc.ServerCredentials:
    shown = (credentials.key.encode(), credentials.certificate.encode())
    return grpc.ssl_server_credentials([shown], "".join(credentials.roots).encode(), require_client_auth=True)


def _of_client(credentials: Credentials) -> grpc.ChannelCredentials:
    roots = "".join(credentials.roots).encode()
    return grpc.ssl_channel_credentials(roots, credentials.key.encode(), credentials.certificate.encode())
