"""The codec: every message there and back; whatever else comes is an `InvalidMessage`."""

import time
import tracemalloc
from contextlib import suppress
from typing import Any, get_args

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from sdq.errors import InvalidMessage, UsageError
from sdq.protocol.codec import decode, encode, unpack
from sdq.protocol.messages import (
    Cancel,
    ClientMessage,
    ErrorReply,
    Generate,
    Hello,
    Message,
    Ping,
    ServerMessage,
    Status,
)
from sdq.spec import SpecDraft


class Blob(msgspec.Struct, tag_field="type", tag="blob"):
    data: bytes


STRUCTS = tuple(dict.fromkeys(get_args(Message)))


def values_of(info: inspect.Type) -> st.SearchStrategy[Any]:
    """Values that a field's annotation allows."""
    match info:
        case inspect.Metadata(type=inner):
            return values_of(inner)
        case inspect.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{field.name: values_of(field.type) for field in fields})
        case inspect.UnionType(types=types):
            return st.one_of([values_of(inner) for inner in types])
        case inspect.VarTupleType(item_type=item, min_length=least):
            return st.lists(values_of(item), min_size=least or 0, max_size=3).map(tuple)
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(values_of(key), values_of(value), max_size=3)
        case inspect.EnumType(cls=cls):
            return st.sampled_from(cls)
        case inspect.LiteralType(values=literals):
            return st.sampled_from(literals)
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.BytesType():
            return st.binary(max_size=100)
        case inspect.IntType():
            low = info.ge if info.ge is not None else -(2**63)
            high = info.le if info.le is not None else (info.lt or 2**63) - 1
            return st.integers(min_value=low, max_value=high)
        case inspect.FloatType():
            low = info.ge if info.ge is not None else info.gt
            open_end = info.gt is not None
            return st.floats(low, info.le, allow_nan=False, exclude_min=open_end)
        case inspect.StrType(pattern=str(pattern)):
            return st.from_regex(pattern).filter(lambda text: len(text) <= 100)
        case inspect.StrType(max_length=most):
            return st.text(st.characters(codec="utf-8"), max_size=min(most or 30, 30))
    raise AssertionError(f"no values for {info}")


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_message_goes_there_and_back(struct: type[msgspec.Struct]) -> None:
    kind = ClientMessage if struct in get_args(ClientMessage) else ServerMessage

    @settings(max_examples=25, deadline=None)
    @given(values_of(inspect.type_info(struct)))
    def there_and_back(message: msgspec.Struct) -> None:
        data = encode(message)
        assert decode(data, kind) == message
        assert decode(memoryview(data), struct) == message
        assert msgspec.msgpack.decode(data, type=kind) == message  # an outside reader

    there_and_back()


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_invalid(data: bytes) -> None:
    for kind in (ClientMessage, ServerMessage):
        with suppress(InvalidMessage):
            decode(data, kind)


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(
    tag=st.sampled_from([struct.__struct_config__.tag for struct in STRUCTS]),
    fields=st.dictionaries(
        st.sampled_from([name for struct in STRUCTS for name in struct.__struct_fields__]),
        plain_values,
        max_size=8,
    ),
)
def test_wrong_values_in_right_fields_are_invalid_and_nothing_else(
    tag: str, fields: dict[str, Any]
) -> None:
    data = msgpack.packb({"type": tag, **fields})
    for kind in (ClientMessage, ServerMessage):
        with suppress(InvalidMessage):
            decode(data, kind)
            continue
        with pytest.raises(InvalidMessage, match=r"\$|`"):  # the field's name or path
            decode(data, kind)


DRAFT = {"prompt": "a red circle"}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({}, "request_id"),
        ({"request_id": "1"}, "$.request_id"),
        ({"request_id": True}, "$.request_id"),
        ({"request_id": -1}, "$.request_id"),
        ({"request_id": 2**53 + 1}, "$.request_id"),
        ({"request_id": 1.0}, "$.request_id"),
        ({"request_id": 1}, "draft"),
        ({"request_id": 1, "draft": None}, "$.draft"),
        ({"request_id": 1, "draft": DRAFT, "count": 0}, "$.count"),
        ({"request_id": 1, "draft": DRAFT, "count": 1_001}, "$.count"),
        ({"request_id": 1, "draft": DRAFT, "count": 2**64 - 1}, "$.count"),
        ({"request_id": 1, "draft": DRAFT, "cache": "maybe"}, "$.cache"),
        ({"request_id": 1, "draft": DRAFT, "wait": 1}, "$.wait"),
        ({"request_id": 1, "draft": DRAFT, "chache": "off"}, "chache"),
        ({"request_id": 1, "draft": DRAFT | {"strength": 0.5}}, "strength"),
        ({"request_id": 1, "draft": {}}, "$.draft"),
        ({"request_id": 1, "draft": {"prompt": b"bytes"}}, "$.draft.prompt"),
        ({"request_id": 1, "draft": {"prompt": "x" * 4_001}}, "$.draft.prompt"),
        ({"request_id": 1, "draft": DRAFT | {"width": 64.0}}, "$.draft.width"),
        ({"request_id": 1, "draft": DRAFT | {"width": 4}}, "$.draft.width"),
        ({"request_id": 1, "draft": DRAFT | {"seed": 2**32}}, "$.draft.seed"),
        ({"request_id": 1, "draft": DRAFT | {"guidance_scale": float("nan")}}, "guidance_scale"),
        ({"request_id": 1, "draft": DRAFT | {"guidance_scale": float("inf")}}, "guidance_scale"),
        ({"request_id": 1, "draft": DRAFT | {"guidance_scale": True}}, "$.draft.guidance_scale"),
        ({"request_id": 1, "draft": DRAFT | {"model": ["shapes"]}}, "$.draft.model"),
    ],
)
def test_the_wrong_field_is_named(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        decode(msgpack.packb({"type": "generate", **fields}), ClientMessage)
    assert path in caught.value.message


@pytest.mark.parametrize("kind", [ClientMessage, ServerMessage])
@pytest.mark.parametrize(
    "plain",
    [None, 1, "generate", [], ["generate"], {}, {"type": None}, {"type": 1}, {"type": ["ping"]},
     {"type": "Generate"}, {"type": "nonsense"}, {"type": b"ping"}, {b"type": "ping"}],
)  # fmt: skip
def test_what_is_no_message_is_invalid(plain: Any, kind: type[Any]) -> None:
    with pytest.raises(InvalidMessage):
        decode(msgpack.packb(plain), kind)


def test_an_unknown_type_is_named_with_its_request() -> None:
    with pytest.raises(InvalidMessage, match="paint") as caught:
        decode(msgpack.packb({"type": "paint", "request_id": 7}), ClientMessage)
    assert caught.value.request_id == 7
    assert caught.value.code == "invalid_message"


@pytest.mark.parametrize("request_id", [True, "1", -1, 1.5, None, 2**60, [1]])
def test_a_request_id_that_is_none_is_not_answered(request_id: Any) -> None:
    with pytest.raises(InvalidMessage) as caught:
        decode(msgpack.packb({"type": "cancel", "request_id": request_id}), ClientMessage)
    assert caught.value.request_id is None


def test_messages_of_the_other_direction_are_invalid() -> None:
    with pytest.raises(InvalidMessage, match="generate"):
        decode(encode(Generate(1, SpecDraft("x"))), ServerMessage)
    with pytest.raises(InvalidMessage, match="errorreply"):
        decode(encode(ErrorReply(1, "busy", "no")), ClientMessage)


def test_unknown_fields_are_ignored_where_a_newer_peer_may_add_them() -> None:
    for message, kind in (
        (ErrorReply(1, "busy", "no"), ServerMessage),
        (Ping(3), ClientMessage),
        (Hello(1, 2), ClientMessage),
    ):
        plain = msgspec.to_builtins(message) | {"mood": "fine"}
        assert decode(msgpack.packb(plain), kind) == message


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xc1", id="the byte that msgpack never uses"),
        pytest.param(b"\xa3ab", id="text cut off"),
        pytest.param(b"\x01\x02", id="two values"),
        pytest.param(b"\xa2\xff\xfe", id="no UTF-8"),
        pytest.param(b"\xa3\xed\xa0\x80", id="a lone surrogate"),
        pytest.param(b"\x81\xa4type\xa2\xff\xfe", id="no UTF-8 in a value"),
        pytest.param(b"\x81\x01\x02", id="a number as key"),
        pytest.param(b"\x81\xc0\x02", id="nil as key"),
        pytest.param(b"\x81\x91\x01\x02", id="an array as key"),
        pytest.param(b"\xd4\x05\x00", id="ext"),
        pytest.param(b"\xc7\x00\x05", id="empty ext"),
        pytest.param(b"\xd6\xff\x00\x00\x00\x00", id="timestamp"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="a map of 4 billion"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="an array of 4 billion"),
        pytest.param(b"\xdb\xff\xff\xff\xff", id="a text of 4 GiB"),
        pytest.param(b"\xc6\xff\xff\xff\xff", id="4 GiB of bytes"),
        pytest.param(b"\xc9\xff\xff\xff\xff\x05", id="an ext of 4 GiB"),
        pytest.param(b"\x91" * 100_000, id="deep arrays"),
        pytest.param(b"\x81\xa1a" * 30_000, id="deep maps"),
        pytest.param(b"\xdc\x27\x10" * 1_000, id="deep arrays that claim 10,000 each"),
        pytest.param(b"\xde\x27\x10\xa1a" * 1_000, id="deep maps that claim 10,000 each"),
    ],
)
def test_hostile_bytes_are_refused_quickly_and_in_little_memory(data: bytes) -> None:
    start = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidMessage) as caught:
            decode(data, ClientMessage)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.message
    assert peak_bytes < 40 * 1024 * 1024
    assert time.perf_counter() - start < 2


def test_more_items_than_a_container_may_hold() -> None:
    with pytest.raises(InvalidMessage, match="10000"):
        unpack(msgpack.packb([0] * 10_001))
    assert len(unpack(msgpack.packb([0] * 10_000))) == 10_000


def test_nesting_inside_an_ignored_field_is_bounded() -> None:
    nested: Any = 0
    for _ in range(400):
        nested = [nested]
    message = {"type": "ping", "number": 1, "more": nested}
    assert decode(msgpack.packb(message), ClientMessage) == Ping(1)


def test_bytes_stay_bytes_and_numbers_keep_their_kind() -> None:
    plain = unpack(encode(Cancel(1, 2)))
    assert plain == {"type": "cancel", "request_id": 1, "target": 2}
    assert decode(msgpack.packb({"type": "generate", "request_id": 1,
                                 "draft": DRAFT | {"guidance_scale": 7}}), ClientMessage) \
        == Generate(1, SpecDraft("a red circle", guidance_scale=7.0))  # fmt: skip


def test_text_is_not_taken_for_bytes() -> None:
    """By default `msgspec.convert` reads text as base64 where bytes are wanted."""
    picture = msgpack.packb({"type": "blob", "data": "aGVsbG8="})
    with pytest.raises(InvalidMessage, match=r"\$\.data"):
        decode(picture, Blob)
    assert decode(msgpack.packb({"type": "blob", "data": b"x"}), Blob) == Blob(b"x")


def test_text_that_cannot_be_sent_is_the_users_error() -> None:
    with pytest.raises(UsageError, match="cannot be sent"):
        encode(Generate(1, SpecDraft("caf\udce9")))
    with pytest.raises(UsageError, match="too large"):
        encode(Generate(1, SpecDraft("x", seed=2**70)))


def test_a_message_costs_microseconds() -> None:
    """Going through the whole union of types for each message cost 7 µs and more."""
    data = encode(Generate(1, SpecDraft("a red circle on a blue background")))

    def seconds_each() -> float:
        start = time.perf_counter()
        for _ in range(2_000):
            decode(data, ClientMessage)
        return (time.perf_counter() - start) / 2_000

    assert min(seconds_each() for _ in range(5)) < 20e-6


def test_every_tag_belongs_to_one_struct() -> None:
    for kind in (ClientMessage, ServerMessage):
        tags = [struct.__struct_config__.tag for struct in get_args(kind)]
        assert len(tags) == len(set(tags))
    assert Status.__struct_config__.tag == "status"
