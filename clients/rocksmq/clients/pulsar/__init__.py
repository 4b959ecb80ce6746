"""Apache Pulsar, as message streams and the mirror use it. Needs ``pip install 'rocksmq[pulsar]'``, but for this."""

PREFETCH = 4_000  # messages that a stream reads ahead, of all its topics together
SCHEMES = ("pulsar://", "pulsar+ssl://")  # of its addresses
TOPIC_TEMPLATE = "persistent://public/default/{channel}"  # the topic of a channel
