"""Tests of whole brokers: real processes, real files, real sockets."""
