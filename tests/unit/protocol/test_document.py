"""``docs/protocol.md`` against the code: tables, numbers, codes and bytes cannot drift apart."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from msgspec import inspect

from sdq import errors
from sdq.protocol import constants
from sdq.protocol.codec import decode, encode
from sdq.protocol.connection import ClientConnection, ConnectionState, ServerConnection
from sdq.protocol.framing import frame
from sdq.protocol.messages import ClientMessage, Message, ServerMessage, Welcome

DOCUMENT = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text("utf-8")

IN_WORDS = {
    r"^[0-9a-f]{64}\Z": "64 hex digits",
    r"^[0-9a-f]{4,64}\Z": "4 to 64 hex digits",
    r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z": "model id",
    r"^[0-9a-z]{1,40}\Z": "job id",
    r"^[A-Za-z0-9_.-]{1,100}\Z": "worker id",
    r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*\Z": "relative path",
}

Row = tuple[str, str, str]


def type_in_words(info: inspect.Type) -> str:
    match info:
        case inspect.Metadata(type=inner):
            return type_in_words(inner)
        case inspect.StructType(cls=cls):
            return f"`{cls.__name__}`"
        case inspect.UnionType(types=types):
            return " or ".join(map(type_in_words, types))
        case inspect.VarTupleType(item_type=item, max_length=most):
            return f"array of {type_in_words(item)}" + (f", at most {most}" if most else "")
        case inspect.EnumType(cls=cls):
            return " / ".join(f"`{member.value}`" for member in cls)
        case inspect.LiteralType(values=values):
            return " / ".join(f"`{value}`" for value in values)
        case inspect.StrType(pattern=str(pattern)):
            return IN_WORDS[pattern]
        case inspect.StrType(max_length=most):
            return "text" + (f", at most {most} characters" if most else "")
        case inspect.IntType() | inspect.FloatType():
            return number_in_words(info)
    return {"NoneType": "nil", "BoolType": "bool", "BytesType": "bytes"}[type(info).__name__]


def number_in_words(info: inspect.IntType | inspect.FloatType) -> str:
    if (info.ge, info.le) == (0, 2**53):
        return "id"
    name = "int" if isinstance(info, inspect.IntType) else "float"
    high = info.le if info.le is not None else (info.lt - 1 if info.lt is not None else None)
    if high is not None:
        return (
            f"{name} {info.ge:g} to {high:g}" if name == "float" else f"{name} {info.ge} to {high}"
        )
    if info.gt is not None:
        return f"{name}, more than {info.gt:g}"
    return f"{name}, {info.ge} or more" if info.ge is not None else name


def rows_of(info: inspect.StructType) -> list[Row]:
    rows = []
    for field in info.fields:
        default = "required"
        if field.default is not msgspec.NODEFAULT:
            default = "`nil`" if field.default is None else f"`{_as_json(field.default)}`"
        rows.append((field.name, type_in_words(field.type), default))
    return rows


def _as_json(value: object) -> str:
    return json.dumps(value, default=lambda raw: bytes(raw).decode())


def structs_inside(info: inspect.Type, found: dict[str, inspect.StructType]) -> None:
    """All structs that messages are made of, by name."""
    match info:
        case inspect.StructType(cls=cls, fields=fields):
            found[cls.__name__] = info
            for field in fields:
                structs_inside(field.type, found)
        case inspect.Metadata(type=inner) | inspect.VarTupleType(item_type=inner):
            structs_inside(inner, found)
        case inspect.UnionType(types=types):
            for inner in types:
                structs_inside(inner, found)


def expected_tables() -> dict[str, list[Row]]:
    found: dict[str, inspect.StructType] = {}
    for info in inspect.multi_type_info(get_args(Message)):
        structs_inside(info, found)
    return {str(info.tag or name): rows_of(info) for name, info in found.items()}


def section(title: str) -> str:
    return DOCUMENT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def written_tables() -> dict[str, list[Row]]:
    tables = {}
    for part in re.split(r"^#{2,3} ", DOCUMENT, flags=re.MULTILINE):
        title, _, body = part.partition("\n")
        rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| .*\|$", body, re.MULTILINE)
        if "| field | type | default | meaning |" in body:
            tables[title.strip("`")] = rows
    return tables


@pytest.mark.parametrize("name", expected_tables())
def test_the_tables_are_the_structs(name: str) -> None:
    assert written_tables()[name] == expected_tables()[name]


def test_nothing_is_written_down_that_does_not_exist() -> None:
    assert set(written_tables()) == set(expected_tables())


def test_each_message_stands_under_its_direction() -> None:
    both = set(get_args(ClientMessage)) & set(get_args(ServerMessage))
    for title, structs in (
        ("Messages in both directions", both),
        ("Messages from the client", set(get_args(ClientMessage)) - both),
        ("Messages from the server", set(get_args(ServerMessage)) - both),
    ):
        tags = re.findall(r"^### `(\w+)`$", section(title), re.MULTILINE)
        assert sorted(tags) == sorted(struct.__struct_config__.tag for struct in structs)


def test_the_codes_are_those_of_the_errors() -> None:
    written = re.findall(r"^\| `(\w+)` \|", section("Errors"), re.MULTILINE)
    codes = [cls.code for cls in vars(errors).values() if isinstance(cls, type)]
    assert sorted(written) == sorted(codes)


def test_the_numbers_are_the_constants() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([\d.]+) \|", section("Limits"), re.MULTILINE)
    values = {name: str(value) for name, value in vars(constants).items() if name.isupper()}
    assert dict(rows) == values


def test_numbers_in_the_text_are_the_constants() -> None:
    text = " ".join(DOCUMENT.split("## Messages in both directions")[0].split())
    assert f"port {constants.DEFAULT_PORT} by default" in text
    assert f"within {constants.HANDSHAKE_TIMEOUT_SECONDS:g} seconds" in text
    assert f"({constants.IDLE_TIMEOUT_SECONDS:g} by default)" in text
    assert f"Over {constants.MAX_OUTBOX_BYTES // 2**20} MiB the connection is cut" in text
    assert f"less than {constants.MIN_TAKEN_BYTES // 1024} KiB" in text
    assert f"in {constants.WRITE_TIMEOUT_SECONDS:g} seconds" in text
    assert f"{constants.MAX_CONTAINER_ITEMS} elements" in text
    assert f"below {constants.MAX_REQUEST_BYTES // 2**20} MiB a frame" in text
    assert f"Version {constants.PROTOCOL_VERSION}." in text
    assert constants.PING_INTERVAL_SECONDS <= constants.IDLE_TIMEOUT_SECONDS / 3


def exchange() -> list[tuple[str, dict[str, Any], bytes]]:
    """The frames of the worked exchange: who sends, what it means, its bytes."""
    block = DOCUMENT.split("```hex\n")[1].split("```")[0]
    frames: list[tuple[str, dict[str, Any], bytes]] = []
    for part in re.split(r"^# ", block, flags=re.MULTILINE)[1:]:
        head, _, digits = part.partition("\n")
        who, _, meaning = head.partition(": ")
        frames.append((who, json.loads(meaning), bytes.fromhex(digits)))
    return frames


def test_the_exchange_in_bytes_is_what_the_code_sends_and_reads() -> None:
    welcome = next(meaning for _, meaning, _ in exchange() if meaning["type"] == "welcome")
    ends = {
        "client": ServerConnection(msgspec.convert(welcome, Welcome).limits),  # who reads it
        "server": ClientConnection(),
    }
    for who, meaning, data in exchange():
        kind = ClientMessage if who == "client" else ServerMessage
        message = decode(data[4:], kind)
        assert frame(encode(message), len(data)) == data
        told = msgspec.to_builtins(message, builtin_types=(bytes,))
        if "image" in told:
            told["image"] = f"hex {told['image'].hex()}"
        assert told == meaning
        assert ends[who].receive(data) == [message]
        if meaning["type"] == "hello":
            reader = ends["client"]
            assert isinstance(reader, ServerConnection)
            assert reader.welcome(welcome["server"]) == exchange()[1][2]
    assert {end.state for end in ends.values()} == {ConnectionState.OPEN}
    assert [meaning["type"] for _, meaning, _ in exchange()] == [
        "hello", "welcome", "ping", "pong", "generate", "picture",
    ]  # fmt: skip


def test_every_word_in_the_glossary_is_sorted_in_and_explained() -> None:
    glossary = (Path(__file__).parents[3] / "docs" / "glossary.md").read_text("utf-8")
    words = re.findall(r"^\*\*(.+?)\*\*", glossary, re.MULTILINE)
    assert words == sorted(words, key=str.lower)
    assert {"key", "spec", "draft", "fingerprint", "link", "retention", "attempt"} <= set(words)
