"""Numbers that both ends of the protocol agree on. ``docs/protocol.md`` explains them."""

PROTOCOL_VERSION = 1
OLDEST_PROTOCOL_VERSION = 1

DEFAULT_PORT = 7433

LENGTH_BYTES = 4
"""A frame is its length as a big-endian unsigned 32-bit number, then that many bytes."""

MAX_REQUEST_BYTES = 1024 * 1024
"""The largest frame that a server takes from a client."""

MAX_REPLY_BYTES = 64 * 1024 * 1024
"""The largest frame that a client takes from a server: one picture and its data."""

MAX_CONTAINER_ITEMS = 10_000
"""Elements in one msgpack array or map."""

MAX_REQUESTS_IN_FLIGHT = 1_000
"""Requests under way at once on one connection."""

MAX_COUNT = 1_000
"""Pictures of one request."""

MAX_JOBS_AT_ONCE = 1_000
"""Jobs that one message may name."""

MAX_INTENTS_AT_ONCE = 100
"""Requests that one message may ask to foresee."""

MAX_PREVIEW_BYTES = 16 * 1024
"""The largest preview of a picture that is being drawn; larger ones are dropped on the way."""

MAX_ERROR_CHARACTERS = 4_000
"""Longer texts of an error reply are cut."""

MAX_OUTBOX_BYTES = 128 * 1024 * 1024
"""Bytes that wait for a slow reader before its connection is closed."""

HANDSHAKE_TIMEOUT_SECONDS = 10.0
PING_INTERVAL_SECONDS = 20.0
IDLE_TIMEOUT_SECONDS = 60.0
"""Silence, pings included, after which the peer counts as gone."""

WRITE_TIMEOUT_SECONDS = 30.0
"""How long a peer may leave a full outbox unread."""

MIN_TAKEN_BYTES = 64 * 1024
"""What a peer must take of a full outbox in that time to count as slow and not as stuck."""
