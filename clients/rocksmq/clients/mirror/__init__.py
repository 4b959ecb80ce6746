"""The mirror: channels of a RocksMQ broker to topics of Apache Pulsar, and back. Needs ``pip install 'rocksmq[pulsar]'``."""
