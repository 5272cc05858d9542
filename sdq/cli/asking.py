"""Short questions to a server: connect, ask, leave."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import typer

from sdq.cli import options

if TYPE_CHECKING:
    from sdq.client.client import Client

T = TypeVar("T")


def ask(server: str | None, question: Callable[["Client"], Awaitable[T]]) -> T:
    """The server's answer. ``server``: the flag, ``None`` for the configured one."""
    settings = options.settings(client__server=server).client
    answers: list[T] = []

    async def command() -> int:
        from sdq.client.connecting import connect

        way = connect(settings.server, reconnect_seconds=settings.reconnect_seconds)
        async with way as client:
            answers.append(await question(client))
        return 0

    if code := options.run(command()):
        raise typer.Exit(code)
    return answers[0]
