"""``sdq model add``: publishing a model to those who draw."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdq.cli import options
from sdq.cli.asking import ask
from sdq.cli.output import as_bytes, plain, print_json, tell
from sdq.cli.picture_options import sides_of
from sdq.errors import UsageError

if TYPE_CHECKING:
    from sdq.cli.publishing import Report
    from sdq.protocol.model import ModelManifest

_ABOUT = "About the model"

Links = Annotated[
    list[str],
    typer.Argument(
        metavar="LINK…",
        help="One file and its mirrors (https://, hf://org/name@revision/file, a share link of "
        "Google Drive, file://), a whole repository (hf://org/name@revision), or PATH=LINK for "
        "each file of a folder.",
        show_default=False,
    ),
]
ModelId = Annotated[str, typer.Argument(metavar="ID", help="Its name in requests.")]
Sha256 = Annotated[
    str | None,
    typer.Option(metavar="HEX", help="Of a single file: with --bytes too, it is not read."),
]
Bytes = Annotated[int | None, typer.Option("--bytes", metavar="N", min=1, help="Its exact size.")]
FileName = Annotated[
    str | None, typer.Option(metavar="FILE", help="A single file's name, if its link has none.")
]
Like = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        help="A model whose defaults and limits it takes over. Default: told by its files.",
    ),
]
Title = Annotated[str | None, typer.Option(help="For people.", rich_help_panel=_ABOUT)]
License = Annotated[str | None, typer.Option(help="Its name.", rich_help_panel=_ABOUT)]
Size = Annotated[
    str | None, typer.Option(metavar="WxH", help="Default size.", rich_help_panel=_ABOUT)
]
Steps = Annotated[int | None, typer.Option(min=1, help="Default steps.", rich_help_panel=_ABOUT)]
Guidance = Annotated[
    float | None, typer.Option(min=0, help="Default guidance.", rich_help_panel=_ABOUT)
]
Scheduler = Annotated[str | None, typer.Option(help="Default scheduler.", rich_help_panel=_ABOUT)]
Canary = Annotated[
    str | None,
    typer.Option(metavar="PROMPT", help="Drawn to prove an installation.", rich_help_panel=_ABOUT),
]
Golden = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="How the canary should look: the picture of a worker that is right.",
        rich_help_panel=_ABOUT,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="What a device should have.", rich_help_panel=_ABOUT),
]
Distilled = Annotated[
    bool | None,
    typer.Option(
        "--distilled/--not-distilled",
        help="It was made for a few steps (turbo).",
        show_default=False,
        rich_help_panel=_ABOUT,
    ),
]
Replace = Annotated[bool, typer.Option("--replace", help="The model may be there already.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the entry as JSON; change nothing.")]


def add_model(
    model_id: ModelId,
    links: Links,
    server: options.Server = None,
    sha256: Sha256 = None,
    size_bytes: Bytes = None,
    name: FileName = None,
    like: Like = None,
    title: Title = None,
    license: License = None,
    size: Size = None,
    steps: Steps = None,
    guidance: Guidance = None,
    scheduler: Scheduler = None,
    canary: Canary = None,
    golden: Golden = None,
    memory: Memory = None,
    distilled: Distilled = None,
    replace: Replace = False,
    dry_run: DryRun = False,
) -> None:
    """Add a model to the server's catalog, by the links that workers fetch it from.

    Its files are read once to learn size and SHA-256; no model is published without them.

    \b
    Examples:
      sdq model add mine https://example.org/mine.safetensors --license MIT
      sdq model add sd21 hf://org/name@main --like sd15
      sdq model add mine unet/w.safetensors=https://… unet/config.json=https://…
    """
    from sdq.cli.publishing import Wishes, check_names, golden_of, look_at, manifest_of

    check_names(model_id, sha256 or "")
    width, height = sides_of(size) if size else (None, None)
    wishes = Wishes(
        title=title,
        license=license,
        width=width,
        height=height,
        steps=steps,
        guidance=guidance,
        scheduler=scheduler,
        canary_prompt=canary,
        memory_bytes=options.size_bytes(memory, "--memory") if memory else None,
        is_distilled=distilled,
        golden=golden_of(golden) if golden else "",
    )
    with progress() as report:
        found = look_at(
            links, sha256=sha256 or "", size_bytes=size_bytes, name=name or "", report=report
        )
    model = _liked(server, like or found.like)
    manifest = manifest_of(model_id, found, model, wishes)
    if dry_run:
        import msgspec

        print_json(msgspec.to_builtins(manifest))
        return
    done = ask(server, lambda client: client.put_model(manifest, replaces=replace))
    tell(f"{plain(done.model_id)} is in the catalog: {_summary(manifest)}, like {model.model_id}")
    if done.cancelled:
        tell(f"{done.cancelled} waiting jobs of its former files are cancelled")
    tell(f"next, where it shall be drawn: sdq worker install --model {plain(done.model_id)}")


def _liked(server: str | None, like: str) -> "ModelManifest":
    if not like:
        raise UsageError(
            "the files do not say which family of models this is",
            hint="name a model whose defaults and limits it shall have: --like sd15",
        )
    return ask(server, lambda client: client.model(like)).manifest


def _summary(manifest: "ModelManifest") -> str:
    sizes = [file.size_bytes or 0 for file in manifest.files]
    count = f"{len(sizes)} files" if len(sizes) > 1 else "one file"
    return f"{count}, {as_bytes(sum(sizes))}" if all(sizes) else count


@contextmanager
def progress() -> Iterator["Report"]:
    """Tells what is being read, on a terminal."""
    import sys

    if not sys.stderr.isatty():
        yield lambda file, done: None
        return
    from rich.console import Console

    with Console(stderr=True).status("reading what the links give") as status:
        yield lambda file, done: status.update(f"reading {plain(file)}: {as_bytes(done)}")
