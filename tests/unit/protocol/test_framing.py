"""Frames: any cutting of the bytes gives the same payloads, and nothing costs too much."""

import time
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdq.errors import FrameTooLarge, LocalProtocolError
from sdq.protocol.framing import FrameDecoder, foreign_protocol, frame

LIMIT_BYTES = 1_000


def joined(payloads: list[bytes]) -> bytes:
    return b"".join(frame(payload, LIMIT_BYTES) for payload in payloads)


@given(
    payloads=st.lists(st.binary(max_size=50), max_size=8),
    cuts=st.lists(st.integers(min_value=0, max_value=500), max_size=20),
)
def test_any_split_gives_the_same_payloads(payloads: list[bytes], cuts: list[int]) -> None:
    data = joined(payloads)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    decoder = FrameDecoder(LIMIT_BYTES)
    found = []
    for start, end in pairwise(places):
        found += decoder.feed(data[start:end])
    assert found == payloads
    assert decoder.is_between_frames
    assert decoder.error is None


@given(payloads=st.lists(st.binary(max_size=20), max_size=5))
def test_byte_by_byte(payloads: list[bytes]) -> None:
    decoder = FrameDecoder(LIMIT_BYTES)
    found = [payload for byte in joined(payloads) for payload in decoder.feed(bytes([byte]))]
    assert found == payloads


def test_a_cut_frame_is_noticed() -> None:
    decoder = FrameDecoder(LIMIT_BYTES)
    assert decoder.feed(frame(b"whole", LIMIT_BYTES) + b"\0\0") == [b"whole"]
    assert not decoder.is_between_frames
    decoder.feed(b"\0\1")
    assert not decoder.is_between_frames
    assert decoder.feed(b"x") == [b"x"]
    assert decoder.is_between_frames


def test_the_limit_itself_is_allowed() -> None:
    payload = bytes(LIMIT_BYTES)
    assert FrameDecoder(LIMIT_BYTES).feed(frame(payload, LIMIT_BYTES)) == [payload]
    with pytest.raises(LocalProtocolError, match="1001 bytes"):
        frame(bytes(LIMIT_BYTES + 1), LIMIT_BYTES)


def test_frames_before_a_bad_one_are_delivered_and_nothing_after_it() -> None:
    decoder = FrameDecoder(LIMIT_BYTES)
    bad = (LIMIT_BYTES + 1).to_bytes(4, "big")
    assert decoder.feed(joined([b"one", b"two"]) + bad + b"rest") == [b"one", b"two"]
    assert isinstance(decoder.error, FrameTooLarge)
    assert "1001 bytes" in decoder.error.message
    assert decoder.feed(joined([b"three"])) == []
    assert decoder.is_between_frames


def test_a_bad_length_in_pieces_is_known_with_its_last_byte() -> None:
    decoder = FrameDecoder(LIMIT_BYTES)
    decoder.feed(b"\xff\xff\xff")
    assert decoder.error is None
    decoder.feed(b"\xff")
    assert decoder.error is not None


def test_a_bad_length_takes_no_memory() -> None:
    decoder = FrameDecoder(64 * 1024 * 1024)
    tracemalloc.start()
    try:
        decoder.feed(b"\x03\xff\xff\xff")  # allowed and not yet here
        decoder_two = FrameDecoder(1024)
        decoder_two.feed(b"\xff\xff\xff\xff")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 50_000


def test_after_a_large_frame_its_memory_is_free() -> None:
    decoder = FrameDecoder(64 * 1024 * 1024)
    data = frame(bytes(16 * 1024 * 1024), 64 * 1024 * 1024)
    tracemalloc.start()
    try:
        for start in range(0, len(data), 1024 * 1024):
            decoder.feed(data[start : start + 1024 * 1024])
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 2 * 1024 * 1024


def test_a_large_frame_in_small_chunks_costs_linear_time() -> None:
    """Some 0.1 s; copying what is there at each chunk would take minutes."""
    size_bytes, chunk = 64 * 1024 * 1024, bytes(1024)
    decoder = FrameDecoder(size_bytes)
    start = time.perf_counter()
    decoder.feed(size_bytes.to_bytes(4, "big"))
    found = []
    for _ in range(size_bytes // len(chunk)):
        found += decoder.feed(chunk)
    assert time.perf_counter() - start < 5
    assert [len(payload) for payload in found] == [size_bytes]


def test_many_small_frames_at_once_cost_linear_time() -> None:
    """Some 0.1 s; moving the rest up after each frame would take half a minute."""
    data = frame(b"x", 10) * 200_000
    start = time.perf_counter()
    assert len(FrameDecoder(10).feed(data)) == 200_000
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize(
    ("first_bytes", "name"),
    [
        (b"GET / HTTP/1.1\r\n", "HTTP"),
        (b"POST /v1 HTTP/1.1\r\n", "HTTP"),
        (b"DELETE / HTTP/1.1\r\n", "HTTP"),
        (b"PRI * HTTP/2.0\r\n", "HTTP"),
        (b"HTTP/1.1 400 Bad Request\r\n", "HTTP"),
        (b"\x16\x03\x01\x00\xc8\x01\x00", "TLS"),
        (b"\x16\x03\x01\x06\xf1\x01\x00", "TLS"),  # a post-quantum client hello is larger
        (b"\x16\x03\x03\x00\x5a\x02", "TLS"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
        (b"*1\r\n$4\r\nPING\r\n", "Redis"),
        (b"-ERR unknown command\r\n", "Redis"),
    ],
)
def test_other_protocols_are_named(first_bytes: bytes, name: str) -> None:
    assert name in foreign_protocol(first_bytes[:4])
    decoder = FrameDecoder(64 * 1024 * 1024)
    assert decoder.feed(first_bytes) == []
    assert decoder.error is not None
    assert name in decoder.error.foreign
    assert name in decoder.error.message
    assert "sdq server" in decoder.error.hint


@given(st.integers(min_value=0, max_value=64 * 1024 * 1024))
def test_no_allowed_length_is_taken_for_another_protocol(size: int) -> None:
    assert foreign_protocol(size.to_bytes(4, "big")) == ""
