"""`make bench`: the broker, the client, a bare RocksDB and the machine, measured in one run."""
