"""Flags that several commands have in common."""

import inspect
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from sdq.cli.taking import taking
from sdq.errors import UsageError


def size_of(width: Annotated[int, typer.Option()] = 3, height: int = 2) -> tuple[int, int]:
    if width < 0:
        raise UsageError("no width")
    return width, height


@taking(size=size_of)
def draw(what: str, *, count: int = 1, size: tuple[int, int], quiet: bool = False) -> int:
    """Draw it."""
    print(what, count, size, quiet)
    return 0


def test_a_command_takes_the_flags_of_its_parts() -> None:
    app = typer.Typer()
    app.command()(draw)
    told = CliRunner().invoke(app, ["cat", "--height", "7", "--quiet"])
    assert (told.exit_code, told.stdout) == (0, "cat 1 (3, 7) True\n")
    wrong = CliRunner().invoke(app, ["cat", "--width", "-1"])
    assert isinstance(wrong.exception, UsageError)
    assert CliRunner().invoke(app, ["cat", "--size", "3"]).exit_code == 2


def test_they_stand_where_the_parameter_stood() -> None:
    assert list(inspect.signature(draw).parameters) == [
        "what", "count", "width", "height", "quiet",
    ]  # fmt: skip
    assert (draw.__name__, draw.__doc__) == ("draw", "Draw it.")


def test_a_command_without_the_parameter_is_refused() -> None:
    with pytest.raises(TypeError, match="draw has no parameter 'side'"):
        taking(side=size_of)(draw)
