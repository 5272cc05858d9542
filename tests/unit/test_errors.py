"""The error tree: as drawn, with codes that travel."""

import inspect
import re

import pytest

import sdq.protocol.connection  # noqa: F401  # its own subclasses must not disturb `from_code`
from sdq import errors
from sdq.errors import (
    FrameTooLarge,
    InvalidMessage,
    ProtocolMismatch,
    SdqError,
    UsageError,
    from_code,
)

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, SdqError)
]


def drawn() -> list[tuple[str, str | None, int | None]]:
    """The tree in the docstring as (class, parent, exit code)."""
    rows: list[tuple[str, str | None, int | None]] = []
    parents: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^([ │├└─]*)(\w+Error|\w+)(?: +(\d+))?(?:  +\S.*)?$", line)
        if not found or not (line.startswith("    ")):
            continue
        depth = (len(found[1]) - 4) // 4
        parents[depth] = found[2]
        rows.append((found[2], parents.get(depth - 1), int(found[3]) if found[3] else None))
    return rows


def test_the_drawing_is_the_code() -> None:
    rows = drawn()
    assert {name for name, _, _ in rows} == {cls.__name__ for cls in CLASSES}
    for name, parent, exit_code in rows:
        cls = getattr(errors, name)
        if parent is not None:
            assert cls.__bases__ == (getattr(errors, parent),)
        if exit_code is not None:
            assert cls.exit_code == exit_code
        elif parent is not None:
            assert cls.exit_code == getattr(errors, parent).exit_code


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in CLASSES]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch("[a-z_]+", code) for code in codes)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_error_comes_back_as_its_class(cls: type[SdqError]) -> None:
    sent = cls("what", hint="what next")
    arrived = from_code(sent.code, sent.message, sent.hint)
    assert type(arrived) is cls
    assert (arrived.message, arrived.hint) == ("what", "what next")
    assert arrived.exit_code == sent.exit_code
    assert str(arrived) == "what"


def test_a_mismatch_is_the_clients_class_though_the_connection_has_its_own() -> None:
    assert type(from_code("protocol_mismatch", "x")) is ProtocolMismatch


def test_a_code_of_a_newer_peer_is_kept() -> None:
    error = from_code("out_of_paint", "no red left", "buy some")
    assert type(error) is SdqError
    assert (error.code, error.message, error.hint) == ("out_of_paint", "no red left", "buy some")
    assert SdqError.code == "error"


def test_what_some_errors_carry_besides() -> None:
    assert InvalidMessage("x", request_id=3).request_id == 3
    assert InvalidMessage("x").hint
    assert FrameTooLarge("x", foreign="HTTP").foreign == "HTTP"


def test_exit_codes_for_scripts() -> None:
    assert {cls.exit_code for cls in CLASSES} == {1, 2, 3, 4, 5, 6, 7}
    assert UsageError.exit_code == 2
