"""Every transport that Gary brings keeps the contract."""

from gossip.memory import MemoryNetwork
from gossip.nng import NngTransport
from gossip.testing import SecureTransportContract, TransportContract
from gossip.transport import Transport, TransportConfig


class TestNng(TransportContract):
    def create(self, config: TransportConfig) -> Transport:
        return NngTransport(config)


class TestNngWithCertificates(SecureTransportContract):
    def create(self, config: TransportConfig) -> Transport:
        return NngTransport(config)


class TestMemory(TransportContract):
    def setup_method(self) -> None:
        self.network = MemoryNetwork()

    def create(self, config: TransportConfig) -> Transport:
        return self.network.transport(config)
