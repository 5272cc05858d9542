"""``sdq server`` and what is asked of a running one."""

from pathlib import Path
from typing import Annotated

import typer

from sdq.cli import options
from sdq.cli.asking import ask
from sdq.cli.output import as_bytes, as_pictures, print_data, print_json
from sdq.cli.status import show_status

app = typer.Typer()


@app.callback(invoke_without_command=True)
def server(
    context: typer.Context,
    host: options.Host = None,
    port: options.Port = None,
    redis: options.Redis = None,
    data_dir: options.DataDir = None,
    metrics: options.Metrics = None,
) -> int:
    """Run a server: it keeps the pictures and hands new ones to the workers.

    \b
    Examples:
      sdq server
      sdq server --host 0.0.0.0 --redis redis://:password@queue-box:6379/0
      sdq server --metrics 9434
      sdq server prune
      sdq server check --repair
      sdq server backup sdq.tar
    """
    if context.invoked_subcommand is not None:
        return 0
    chosen = options.settings(
        server__host=host,
        server__port=port,
        server__redis=redis,
        server__data_dir=data_dir,
        server__metrics=metrics,
    )
    from sdq.stack.up import run_server

    return run_server(chosen)


@app.command()
def prune(server: options.Server = None, as_json: options.Json = False) -> None:
    """Have the server throw away what is too old or too much, now.

    \b
    Example:
      sdq server prune --server gpu-box
    """
    removed = ask(server, lambda client: client.prune())
    if as_json:
        print_json({"pictures": removed.pictures, "freed_bytes": removed.freed_bytes})
    else:
        print_data(
            f"{as_pictures(removed.pictures)} removed, {as_bytes(removed.freed_bytes)} freed"
        )


@app.command()
def status(server: options.Server = None, as_json: options.Json = False) -> None:
    """Show the server, its workers and its queue; the same as `sdq status`.

    \b
    Example:
      sdq server status --json
    """
    show_status(server, as_json)


@app.command()
def check(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
    data_dir: options.DataDir = None,
    as_json: options.Json = False,
) -> int:
    """Look through a server's data for what is damaged.

    Looking is allowed while the server runs; for --repair it must be stopped. Nothing is thrown
    away: what is of no use is moved aside.

    \b
    Examples:
      sdq server check
      sdq server check --repair --data-dir /srv/sdq
    """
    from sdq.cli.upkeep import run_check

    return run_check(options.settings(server__data_dir=data_dir).data_dir, repair, as_json)


@app.command()
def backup(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What to write: .tar, .tar.gz or .sqlite3.")
    ],
    data_dir: options.DataDir = None,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Copy a server's data while it runs.

    An archive holds the database and the pictures; .sqlite3 is the database alone. To restore
    it, unpack the archive into an empty folder and start a server with --data-dir there.

    \b
    Example:
      sdq server backup sdq.tar
    """
    from sdq.cli.upkeep import run_backup

    chosen = options.settings(server__data_dir=data_dir).data_dir
    run_backup(chosen, file, force=force, as_json=as_json)
