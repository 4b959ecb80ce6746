"""The broker: engine, storage, group commit and server."""
