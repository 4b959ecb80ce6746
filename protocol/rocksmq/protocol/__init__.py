"""The wire protocol of RocksMQ, without I/O: frames, CBOR, record batches, operations, errors. SPEC.md is normative."""
