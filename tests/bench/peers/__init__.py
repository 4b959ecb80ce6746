"""RocksMQ beside other brokers, each with the client that its Python users have; `make bench-peers`."""

from .kafka import Kafka
from .nats_jetstream import NatsJetStream
from .ours import RocksMQ
from .peer import Peer
from .pulsar import Pulsar, PulsarLite
from .redis_streams import RedisStreams

PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (RocksMQ, RedisStreams, NatsJetStream, Kafka, PulsarLite, Pulsar)}
