"""What `sdq verify` does: ask whether the files are the same, draw, compare, tell."""

import sys
from pathlib import Path
from typing import Any

import msgspec

from sdq.cli.comparing import Comparison, compare
from sdq.cli.describing import provenance_of, read_file
from sdq.cli.from_file import draft_from
from sdq.cli.output import plain, print_data, print_json, tell
from sdq.client.client import Client
from sdq.client.connecting import connect
from sdq.client.pictures import Picture
from sdq.config import ClientSettings
from sdq.errors import ModelError, UnknownModel
from sdq.metadata import Provenance, decoded, read

_LOSSY = (".jpg", ".jpeg", ".webp")


async def verify_file(
    settings: ClientSettings, path: Path, timeout_seconds: float | None, *, as_json: bool
) -> int:
    """The exit code. Raises `UsageError` for no picture of ours, and why it cannot be drawn."""
    said = provenance_of(path)
    async with connect(settings.server, reconnect_seconds=settings.reconnect_seconds) as client:
        await _see_the_model(client, said)
        if sys.stderr.isatty():
            tell(f"drawing {plain(said.spec.prompt)[:60]} again …")
        again = await client.generate(
            draft_from(said.spec), cache="off", timeout_seconds=timeout_seconds
        )
    if again.key != said.key:
        raise ModelError(
            f"the picture would be another one: {_what_differs(said, again)}",
            hint="the server's files are not those that drew it",
        )
    found = compare(decoded(read_file(path)), again.image)
    _tell(path, said, again, found, as_json=as_json)
    return 1 if found.verdict == "different" else 0


async def _see_the_model(client: Client, said: Provenance) -> None:
    """Before a minute is spent on drawing."""
    models = {model.model_id: model for model in await client.models()}
    model = models.get(said.spec.model)
    if model is None:
        raise UnknownModel(
            f"the server does not know the model {said.spec.model}",
            hint="`sdq model list` shows those it knows",
        )
    if model.fingerprint != said.fingerprint:
        raise ModelError(
            f"the files of the model {model.model_id} are not those that drew it: fingerprint "
            f"{model.fingerprint[:10]} instead of {said.fingerprint[:10]}",
            hint="ask a server that has the former files; --server names it",
        )


def _what_differs(said: Provenance, again: Picture) -> str:
    if again.spec.loras != said.spec.loras:
        return "it has other LoRA files"
    return "its parameters are others" if again.spec != said.spec else "it has another key"


def _tell(
    path: Path, said: Provenance, again: Picture, found: Comparison, *, as_json: bool
) -> None:
    now = read(again.png)
    device = now.device if now else ""
    if as_json:
        record: dict[str, Any] = {"file": str(path), "key": said.key, **found._asdict()}
        record |= {"device_then": said.device, "device_now": device}
        record |= {"versions_then": said.versions, "versions_now": now.versions if now else {}}
        print_json(msgspec.to_builtins(record))
        return
    print_data(f"{path}: {_in_words(found)}")
    if found.verdict != "identical":
        tell(f"drawn on {plain(said.device)} then, on {plain(device)} now")
    if path.suffix.lower() in _LOSSY and found.verdict == "different":
        tell("the file is of a kind that does not keep pixels exactly: verify the PNG")


def _in_words(found: Comparison) -> str:
    if found.verdict == "identical":
        return "identical"
    name = "within rounding" if found.verdict == "rounding" else "different"
    share = f"{found.pixels_different} of {found.pixels} pixels"
    return f"{name}: {share} differ, by {found.max_difference} of 255 at most"
