"""Every transport that Gary brings keeps the contract."""

from dataclasses import replace

from gossip.memory import MemoryNetwork
from gossip.nng import NngTransport
from gossip.testing import TransportContract
from gossip.transport import Credentials, Transport, TransportConfig
from tests.gossip.certificates import Authority


class TestNng(TransportContract):
    renewable = False

    def create(self, config: TransportConfig) -> Transport:
        return NngTransport(config)


class TestNngWithCertificates(TransportContract):
    def setup_method(self) -> None:
        self.authority = Authority()

    def create(self, config: TransportConfig) -> Transport:
        return NngTransport(replace(config, credentials=self.credentials(config.node)))

    def credentials(self, node: str) -> Credentials:
        return self.authority.credentials(node)


class TestMemory(TransportContract):
    def setup_method(self) -> None:
        self.network = MemoryNetwork()

    def create(self, config: TransportConfig) -> Transport:
        return self.network.transport(config)
