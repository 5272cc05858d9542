"""``sdq model add-lora``, ``loras`` and ``remove-lora``."""

from typing import TYPE_CHECKING, Annotated

import typer

from sdq.cli import options
from sdq.cli.asking import ask
from sdq.cli.output import as_bytes, plain, print_json, print_table, tell
from sdq.cli.publish import progress

if TYPE_CHECKING:
    from sdq.protocol.model import LoraManifest

_ABOUT = "About the LoRA"

LoraId = Annotated[str, typer.Argument(metavar="ID", help="Its name in requests.")]
Links = Annotated[
    list[str],
    typer.Argument(
        metavar="LINK…",
        help="Its .safetensors file and mirrors of it: https://, hf://org/name@revision/file, a "
        "share link of Google Drive, file://.",
        show_default=False,
    ),
]
For = Annotated[
    list[str],
    typer.Option(
        "--model", metavar="ID", help="A model that it was made for; repeat it for others."
    ),
]
OnlyFor = Annotated[
    str | None, typer.Option("--model", metavar="ID", help="Only those for this model.")
]
Sha256 = Annotated[
    str | None, typer.Option(metavar="HEX", help="With --bytes too, the file is not read.")
]
Bytes = Annotated[int | None, typer.Option("--bytes", metavar="N", min=1, help="Its exact size.")]
Title = Annotated[str | None, typer.Option(help="For people.", rich_help_panel=_ABOUT)]
License = Annotated[str | None, typer.Option(help="Its name.", rich_help_panel=_ABOUT)]
Weight = Annotated[
    float | None,
    typer.Option(
        min=-10, max=10, help="Where a request names none. Default: 1.", rich_help_panel=_ABOUT
    ),
]
Trigger = Annotated[
    str | None,
    typer.Option(
        metavar="WORDS", help="Words in a prompt that call for it.", rich_help_panel=_ABOUT
    ),
]
Replace = Annotated[bool, typer.Option("--replace", help="The LoRA may be there already.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the entry as JSON; change nothing.")]


def add_lora(
    lora_id: LoraId,
    links: Links,
    model: For,
    server: options.Server = None,
    sha256: Sha256 = None,
    size_bytes: Bytes = None,
    title: Title = None,
    license: License = None,
    weight: Weight = None,
    trigger: Trigger = None,
    replace: Replace = False,
    dry_run: DryRun = False,
) -> None:
    """Add a LoRA to the server's catalog: small weights that change what a model draws.

    Its file is read once to learn size and SHA-256. Workers fetch it when a picture asks for it.

    \b
    Examples:
      sdq model add-lora neon https://example.org/neon.safetensors --model sd15
      sdq model add-lora ink file:///data/ink.safetensors --model sdxl --weight 0.8 --trigger "ink"
    """
    from sdq.cli.publishing import check_names
    from sdq.cli.publishing_lora import LoraWishes, lora_file, lora_manifest_of

    check_names(lora_id, sha256 or "")
    for model_id in model:
        check_names(model_id, "")
    wishes = LoraWishes(model, title=title, license=license, weight=weight, trigger=trigger)
    with progress() as report:
        file = lora_file(lora_id, links, sha256=sha256 or "", size_bytes=size_bytes, report=report)
    manifest = lora_manifest_of(lora_id, file, wishes)
    if dry_run:
        import msgspec

        print_json(msgspec.to_builtins(manifest))
        return
    done = ask(server, lambda client: client.put_lora(manifest, replaces=replace))
    models = ", ".join(manifest.models)
    tell(
        f"{plain(done.model_id)} is in the catalog: {as_bytes(file.size_bytes or 0)}, "
        f"for {plain(models)}"
    )
    words = plain(manifest.trigger) or "…"
    tell(
        f'next: sdq generate "{words}" --model {plain(manifest.models[0])} '
        f"--lora {plain(done.model_id)}"
    )


def list_loras(
    model: OnlyFor = None, server: options.Server = None, as_json: options.Json = False
) -> None:
    """List the LoRAs of the server, and which models they are for.

    \b
    Examples:
      sdq model loras
      sdq model loras --model sdxl --json | jq -r .lora_id
    """
    loras = ask(server, lambda client: client.loras(model))
    if as_json:
        import msgspec

        for lora in loras:
            print_json(msgspec.to_builtins(lora))
        return
    if not loras:
        tell("there are none: `sdq model add-lora` adds one")
        return
    print_table(
        ("LORA", "MODELS", "WEIGHT", "BYTES", "TRIGGER", "TITLE", "LICENSE"),
        [_row(lora) for lora in loras],
    )


def remove_lora(lora_id: LoraId, server: options.Server = None) -> None:
    """Take a LoRA out of the server's catalog. Pictures and workers' files stay.

    \b
    Example:
      sdq model remove-lora neon
    """
    done = ask(server, lambda client: client.remove_lora(lora_id))
    tell(f"{plain(done.model_id)} is removed")


def _row(lora: "LoraManifest") -> tuple[object, ...]:
    return (
        lora.lora_id,
        ", ".join(lora.models),
        f"{lora.weight:g}",
        as_bytes(lora.file.size_bytes or 0),
        lora.trigger or "-",
        lora.title,
        lora.license,
    )
