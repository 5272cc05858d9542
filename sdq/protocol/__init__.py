"""The wire between clients and the server: bytes in, events out. See ``docs/protocol.md``."""
