"""``sdq server`` and what is asked of a running one."""

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
) -> int:
    """Run a server: it keeps the pictures and hands new ones to the workers.

    \b
    Examples:
      sdq server
      sdq server --host 0.0.0.0 --redis redis://:password@queue-box:6379/0
      sdq server prune
    """
    if context.invoked_subcommand is not None:
        return 0
    chosen = options.settings(
        server__host=host, server__port=port, server__redis=redis, server__data_dir=data_dir
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
