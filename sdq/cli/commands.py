"""All commands, registered."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from sdq import __version__
from sdq.cli import library, models, server, worker
from sdq.cli.attach import attach
from sdq.cli.batch.command import batch, plan
from sdq.cli.batch.sweep import sweep
from sdq.cli.cancel import cancel
from sdq.cli.completion import completion
from sdq.cli.config import config
from sdq.cli.doctor import doctor
from sdq.cli.fetch import fetch
from sdq.cli.find import find
from sdq.cli.gallery.command import gallery
from sdq.cli.generate import generate
from sdq.cli.history import history
from sdq.cli.inspect import inspect
from sdq.cli.jobs import jobs
from sdq.cli.man import man
from sdq.cli.output import print_data
from sdq.cli.pin import pin, unpin
from sdq.cli.show import show
from sdq.cli.status import status
from sdq.cli.submit import submit
from sdq.cli.top import top
from sdq.cli.up import up
from sdq.cli.verify import verify
from sdq.cli.workers import workers

Version = Annotated[
    bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)
]


def build(only: str = "") -> typer.Typer:
    """The command line. Imports what the signatures need and no more.

    ``only``: the one command that is called. Where there is one of that name, the others are left
    out: to read the signatures of all takes 12 ms.
    """
    app = typer.Typer(
        epilog='Example:  sdq generate "a red circle on a blue background" -o out.png',
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    _add(app, "Draw", generate, batch, plan, sweep, submit, attach, jobs, cancel)
    _add(app, "Look and keep", find, show, inspect, verify, fetch, gallery, pin, unpin, history)
    app.add_typer(library.app, name="library", rich_help_panel="Look and keep")
    _add(app, "Server and workers", up, status, workers, top)
    for name, part in (("server", server), ("worker", worker), ("model", models)):
        app.add_typer(part.app, name=name, rich_help_panel="Server and workers")
    _add(app, "This program", config, doctor, completion, man)
    _leave_only(app, only)
    return app


def _add(app: typer.Typer, panel: str, *commands: Callable[..., Any]) -> None:
    """Commands that the help shows in one panel, in this order."""
    for command in commands:
        app.command(rich_help_panel=panel)(command)


def _leave_only(app: typer.Typer, name: str) -> None:
    commands = [
        one
        for one in app.registered_commands
        if one.callback is not None and one.callback.__name__ == name
    ]
    groups = [one for one in app.registered_groups if one.name == name]
    if commands or groups:
        app.registered_commands, app.registered_groups = commands, groups


def _root(context: typer.Context, version: Version = False) -> None:
    """Draw pictures with another computer's GPU."""
    if version:
        print_data(f"sdq {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print_data(context.get_help())
