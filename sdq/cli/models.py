"""``sdq model``: what the server can have drawn."""

from typing import TYPE_CHECKING, Annotated

import typer

from sdq.cli import completion_words, options
from sdq.cli.asking import ask
from sdq.cli.loras import add_lora, list_loras, remove_lora
from sdq.cli.output import as_bytes, plain, print_data, print_json, print_table, tell
from sdq.cli.publish import add_model

if TYPE_CHECKING:
    from sdq.client.client import Client
    from sdq.protocol.catalog_messages import CatalogChanged, ModelShown
    from sdq.protocol.model import LoraManifest, ModelInfo

ModelId = Annotated[str, typer.Argument(metavar="ID", autocompletion=completion_words.models)]

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


@app.command("show")
def show_model(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]",
            help="Default: the default one.",
            autocompletion=completion_words.models,
        ),
    ] = None,
    server: options.Server = None,
    as_json: options.Json = False,
) -> None:
    """Show all that the catalog says of a model: files, links, hashes, limits, LoRAs, who holds it.

    \b
    Examples:
      sdq model show sdxl
      sdq model show --json | jq .manifest.files
    """
    shown, loras = ask(server, lambda client: _shown(client, model))
    if as_json:
        import msgspec

        print_json(msgspec.to_builtins(shown))
        return
    for line in _lines(shown, loras):
        print_data(line)


@app.command("remove")
def remove_model(model: ModelId, server: options.Server = None) -> None:
    """Take a model out of the server's catalog. Pictures and workers' files stay.

    \b
    Example:
      sdq model remove mine
    """

    async def removed(client: "Client") -> "tuple[CatalogChanged, str, str]":
        before = (await client.model(None)).manifest.model_id
        done = await client.remove_model(model)
        return done, before, (await client.model(None)).manifest.model_id

    done, before, default = ask(server, removed)
    tell(f"{plain(done.model_id)} is removed" + _cancelled(done.cancelled))
    if before != default:
        tell(f"the default was {plain(before)}, it is {plain(default)} now")


@app.command("default")
def default_model(model: ModelId, server: options.Server = None) -> None:
    """Choose the model of requests that name none.

    \b
    Example:
      sdq model default sdxl-turbo
    """
    done = ask(server, lambda client: client.set_default_model(model))
    tell(f"{plain(done.model_id)} is the default now")


app.command("add")(add_model)
app.command("add-lora")(add_lora)
app.command("loras")(list_loras)
app.command("remove-lora")(remove_lora)


async def _shown(
    client: "Client", model: str | None
) -> tuple["ModelShown", tuple["LoraManifest", ...]]:
    shown = await client.model(model)
    return shown, await client.loras(shown.manifest.model_id)


def _cancelled(count: int) -> str:
    return f"; {count} waiting jobs of its former files are cancelled" if count else ""


def _lines(shown: "ModelShown", loras: "tuple[LoraManifest, ...]") -> list[str]:
    manifest, defaults, limits = shown.manifest, shown.manifest.defaults, shown.manifest.limits
    origin = "comes with sdq" if shown.is_shipped else "of this server"
    sides = f"{limits.min_side} to {limits.max_side}, at most {limits.max_pixels} pixels"
    rows = [
        ("model", manifest.model_id + (" (default)" if shown.is_default else "")),
        ("title", manifest.title),
        ("licence", manifest.license),
        ("origin", origin),
        ("kind", manifest.kind),
        ("size", f"{defaults.width}x{defaults.height}; sides {sides}"),
        ("steps", f"{defaults.num_inference_steps}; at most {limits.max_steps}"),
        ("guidance", f"{defaults.guidance_scale:g}"),
        ("scheduler", f"{defaults.scheduler}; of {', '.join(limits.schedulers)}"),
        ("memory", as_bytes(manifest.memory_bytes) if manifest.memory_bytes else "-"),
        ("fingerprint", manifest.fingerprint),
        ("workers", ", ".join(shown.workers) or "none online"),
    ]
    if loras:
        rows.append(("loras", ", ".join(lora.lora_id for lora in loras)))
    lines = [f"{name:<12} {plain(value)}" for name, value in rows]
    for file in manifest.files:
        size = "-" if file.size_bytes is None else as_bytes(file.size_bytes)
        lines += ["", plain(f"{file.path}  {size}  sha256 {file.sha256}")]
        lines += [plain(f"  {link}") for link in file.links]
    return lines


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
