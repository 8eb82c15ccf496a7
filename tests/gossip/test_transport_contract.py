"""Every transport that Gary brings keeps the contract."""

from gossip.nng import NngTransport
from gossip.testing import TransportContract
from gossip.transport import Transport, TransportConfig


class TestNng(TransportContract):
    def create(self, config: TransportConfig) -> Transport:
        return NngTransport(config)
