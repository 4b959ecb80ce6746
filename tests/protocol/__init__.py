"""Tests of the wire protocol: bytes in, values out, without any I/O."""
