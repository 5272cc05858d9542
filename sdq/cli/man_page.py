"""The manual page, made of what the commands say of themselves (roff, man(7))."""

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

from sdq import __version__
from sdq.config import TABLES, variable_of

_HIDDEN = {"install_completion", "show_completion"}
EXIT_CODES = {
    0: "All that was asked for is there.",
    1: "Something failed; of several pictures, some.",
    2: "Wrong use: a flag, a parameter, a name, a file that cannot be written.",
    3: "The server cannot be reached.",
    4: "The server does not allow it.",
    5: "The picture is not in the library.",
    6: "No worker online can do it.",
    7: "It took longer than --timeout allows.",
    130: "Ended by Ctrl-C.",
    143: "Ended by SIGTERM.",
}


def man_page() -> str:
    """sdq(1), whole."""
    from typer.main import get_command

    from sdq.cli.commands import build

    root: Any = get_command(build())
    lines = [
        f'.TH SDQ 1 "" "sdq {_escaped(__version__)}" "User Commands"',
        ".SH NAME",
        "sdq \\- draw pictures with another computer's GPU",
        ".SH SYNOPSIS",
        ".B sdq\n.I COMMAND\n[\\fIOPTION\\fR ...]",
        ".SH DESCRIPTION",
        _escaped(
            "A server keeps pictures and hands new ones to workers, which draw them. This is the "
            "client of both, and starts them. Paths and data go to standard output, all else to "
            "standard error."
        ),
        ".SH COMMANDS",
        *_commands(root, "sdq"),
        ".SH EXIT STATUS",
        *_table((str(code), text) for code, text in EXIT_CODES.items()),
        ".SH ENVIRONMENT",
        *_table(_variables()),
        ".SH FILES",
        *_table([("config.toml", "Settings, in the home of sdq; `sdq config` shows all of them.")]),
    ]
    return "\n".join(lines) + "\n"


def _commands(group: Any, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        full = f"{path} {name}"
        children = getattr(command, "commands", {})
        if not children or _own_options(command):
            yield from _command(command, full)
        if children:
            yield from _commands(command, full)


def _command(command: Any, path: str) -> Iterator[str]:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    usage = " ".join([path, *(one.metavar or one.name.upper() for one in arguments)])
    yield f'.SS "{_escaped(usage)}"'
    yield from _prose(inspect.cleandoc(command.help or ""))
    rows = [
        (one.metavar or one.name.upper(), one.help)
        for one in arguments
        if getattr(one, "help", None)
    ]
    rows += [(_flags(option), option.help or "") for option in _own_options(command)]
    yield from _table(rows)


def _own_options(command: Any) -> list[Any]:
    options = (one for one in command.params if one.param_type_name == "option")
    return [one for one in options if one.name not in _HIDDEN and one.name != "help"]


def _flags(option: Any) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag:
        return names
    choices = getattr(option.type, "choices", None)
    value = option.metavar or ("|".join(map(str, choices)) if choices else option.type.name.upper())
    return f"{names} {value}"


def _prose(text: str) -> Iterator[str]:
    """Paragraphs; those that begin with ``\\b`` keep their lines."""
    for paragraph in text.split("\n\n"):
        kept = paragraph.lstrip().startswith("\b")
        lines = [line for line in paragraph.replace("\b", "").split("\n") if line.strip()]
        if not lines:
            continue
        yield ".PP"
        if kept:
            yield ".nf"
            yield from map(_escaped, lines)
            yield ".fi"
        else:
            yield _escaped(" ".join(line.strip() for line in lines))


def _table(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, text in rows:
        yield ".TP"
        yield f"\\fB{_escaped(name)}\\fR"
        yield _escaped(" ".join(text.split())) or "\\&"


def _variables() -> Iterator[tuple[str, str]]:
    yield "SDQ_HOME", "The folder that everything is kept in."
    for table, kind in TABLES.items():
        for field in fields(kind):
            name = f"{table}.{field.name}"
            default = f" Default: {field.default}." if field.default != "" else ""
            yield variable_of(name), f"The setting {name}.{default}"
    yield "NO_COLOR", "When it is set to anything, nothing is coloured and no pictures are shown."
    yield "SDQ_DEBUG", "1: where an error comes from is printed too."


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return f"\\&{text}" if text[:1] in (".", "'") else text
