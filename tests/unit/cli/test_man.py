"""The manual page: all commands, and roff that `man` takes without a word."""

import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from typer.main import get_command

from sdq import errors
from sdq.cli import commands
from sdq.cli.main import main
from sdq.cli.man_page import EXIT_CODES, man_page
from sdq.config import TABLES

Seen = Callable[..., Awaitable[tuple[str, int]]]


def test_every_command_and_flag_is_in_it() -> None:
    page = man_page().replace("\\-", "-").replace("\\(dq", '"')
    root: Any = get_command(commands.build())
    for name, command in root.commands.items():
        assert f'.SS "sdq {name}' in page
        for option in command.params:
            if option.param_type_name == "option" and option.name != "help":
                assert option.opts[0] in page, (name, option.opts)


def test_every_exit_code_and_setting_is_in_it() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.SdqError)}
    assert codes <= set(EXIT_CODES)
    page = man_page()
    assert all(f"SDQ_{table.upper()}_" in page for table in TABLES)


def test_into_a_pipe_it_is_roff(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["man"]) == 0
    page = capfdbinary.readouterr().out
    assert page.startswith(b".TH SDQ 1")
    assert not any(line.startswith(b"'") for line in page.splitlines())
    assert b"\b" not in page


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff on this machine")
def test_groff_has_nothing_to_say_against_it() -> None:
    command = ["groff", "-man", "-Tutf8", "-ww", "-K", "utf-8", "-z"]
    made = subprocess.run(
        command, input=man_page().encode(), capture_output=True, timeout=20, check=False
    )
    assert made.stderr == b""
    assert made.returncode == 0


async def test_on_a_terminal_without_man_it_is_printed(seen: Seen, tmp_path: Any) -> None:
    (tmp_path / "bin").mkdir()
    text, code = await seen(None, "man", env={"PATH": str(tmp_path / "bin")})
    assert code == 0
    assert text.startswith(".TH SDQ 1")
    assert sys.executable not in text
