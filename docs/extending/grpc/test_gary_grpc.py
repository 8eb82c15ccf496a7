"""The transport on gRPC keeps the contract."""

from gary_grpc import GrpcTransport

from gossip.testing import SecureTransportContract, TransportContract
from gossip.transport import Transport, TransportConfig


class TestGrpc(TransportContract):
    def create(self, config: TransportConfig) -> Transport:
        return GrpcTransport(config)


class TestGrpcWithCertificates(SecureTransportContract):
    def create(self, config: TransportConfig) -> Transport:
        return GrpcTransport(config)
