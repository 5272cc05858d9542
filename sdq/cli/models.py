"""``sdq model``: what the server can have drawn."""

from typing import TYPE_CHECKING

import typer

from sdq.cli import options
from sdq.cli.asking import ask
from sdq.cli.output import as_bytes, print_json, print_table

if TYPE_CHECKING:
    from sdq.protocol.model import ModelInfo

app = typer.Typer(help="The models of the server.", epilog="Example:  sdq model list")


@app.callback()
def model() -> None:
    """The models of the server."""


@app.command("list")
def list_models(server: options.Server = None, as_json: options.Json = False) -> None:
    """List the models, their defaults, and how many workers hold each.

    \b
    Example:
      sdq model list --server gpu-box
    """
    models = ask(server, lambda client: client.models())
    if as_json:
        import msgspec

        for model in models:
            print_json(msgspec.to_builtins(model))
        return
    print_table(
        ("MODEL", "WORKERS", "SIZE", "STEPS", "SCHEDULER", "BYTES", "TITLE", "LICENSE"),
        [_row(model) for model in models],
    )


def _row(model: "ModelInfo") -> tuple[object, ...]:
    defaults = model.defaults
    return (
        model.model_id + (" (default)" if model.is_default else ""),
        model.workers_online,
        f"{defaults.width}×{defaults.height}",
        defaults.num_inference_steps,
        defaults.scheduler,
        "-" if model.size_bytes is None else as_bytes(model.size_bytes),
        model.title,
        model.license,
    )
