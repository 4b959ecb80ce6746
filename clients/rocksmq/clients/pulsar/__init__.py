"""Apache Pulsar, as message streams and the mirror use it. Needs ``pip install 'rocksmq[pulsar]'``."""
