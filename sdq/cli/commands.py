"""All commands, registered."""

from typing import Annotated

import typer

from sdq import __version__
from sdq.cli import library, models, server, worker
from sdq.cli.attach import attach
from sdq.cli.cancel import cancel
from sdq.cli.config import config
from sdq.cli.doctor import doctor
from sdq.cli.fetch import fetch
from sdq.cli.find import find
from sdq.cli.generate import generate
from sdq.cli.inspect import inspect
from sdq.cli.jobs import jobs
from sdq.cli.output import print_data
from sdq.cli.pin import pin, unpin
from sdq.cli.show import show
from sdq.cli.status import status
from sdq.cli.submit import submit
from sdq.cli.up import up
from sdq.cli.workers import workers

Version = Annotated[
    bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)
]


def build() -> typer.Typer:
    """The command line. Imports what the signatures need and no more."""
    app = typer.Typer(
        epilog='Example:  sdq generate "a red circle on a blue background" -o out.png',
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    app.command()(generate)
    app.command()(submit)
    app.command()(attach)
    app.command()(jobs)
    app.command()(cancel)
    app.command()(find)
    app.command()(fetch)
    app.command()(show)
    app.command()(inspect)
    app.command()(pin)
    app.command()(unpin)
    app.command()(up)
    app.add_typer(server.app, name="server")
    app.add_typer(worker.app, name="worker")
    app.add_typer(library.app, name="library")
    app.add_typer(models.app, name="model")
    app.command()(status)
    app.command()(workers)
    app.command()(config)
    app.command()(doctor)
    return app


def _root(context: typer.Context, version: Version = False) -> None:
    """Draw pictures with another computer's GPU."""
    if version:
        print_data(f"sdq {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print_data(context.get_help())
