"""``sdq pin`` and ``sdq unpin``: pictures that stay."""

from typing import TYPE_CHECKING

from sdq.cli import options
from sdq.cli.asking import ask
from sdq.cli.keys import KEYS_AT_ONCE, Keys, checked_keys
from sdq.cli.output import as_pictures, print_data, print_json

if TYPE_CHECKING:
    from sdq.client.client import Client


def pin(keys: Keys, server: options.Server = None, as_json: options.Json = False) -> None:
    """Keep pictures, whatever the retention and the size limit of the library say.

    \b
    Example:
      sdq pin 1a2b3c4d
    """
    _pin(keys, server, pinned=True, as_json=as_json)


def unpin(keys: Keys, server: options.Server = None, as_json: options.Json = False) -> None:
    """Let retention have pictures again, counted from now.

    \b
    Example:
      sdq find --pinned --until 30d --keys | sdq unpin -
    """
    _pin(keys, server, pinned=False, as_json=as_json)


def _pin(texts: list[str], server: str | None, *, pinned: bool, as_json: bool) -> None:
    keys = checked_keys(texts)

    async def change(client: "Client") -> tuple[int, int]:
        named, changed = 0, 0
        for start in range(0, len(keys), KEYS_AT_ONCE):
            answer = await client.pin(keys[start : start + KEYS_AT_ONCE], pinned=pinned)
            named, changed = named + len(answer.keys), changed + answer.changed
        return named, changed

    named, changed = ask(server, change)
    if as_json:
        print_json({"pictures": named, "changed": changed, "pinned": pinned})
        return
    before = f", {named - changed} before" if named > changed else ""
    print_data(f"{as_pictures(changed)} {'pinned' if pinned else 'unpinned'}{before}")
