"""The words that a shell is offered for the value of a flag: those that the server knows.

The shell waits for them, and starts `sdq` for each press of the key: so the server has
`TIMEOUT_SECONDS` in all, and where it is slow, away or foreign nothing is offered and nothing said.

Shells evaluate what they are offered. Words are those of ids alone, and of what stands beside them,
prompts of other people too, only letters, digits and a few harmless marks are left.
"""

import re
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from sdq.client.client import Client

T = TypeVar("T")

TIMEOUT_SECONDS = 0.3
MAX_WORDS = 200
_HELP_CHARACTERS = 40

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NO_HARMLESS = re.compile(r"[^\w .,+-]")

Words = list[tuple[str, str]]
"""A word, and what is said of it where the shell shows that (zsh, fish)."""


def models(context: typer.Context, incomplete: str) -> Words:
    """Models of the catalog."""
    found = _asked(context, lambda client: client.models()) or ()
    return _offered(((model.model_id, model.title) for model in found), incomplete)


def loras(context: typer.Context, incomplete: str) -> Words:
    """LoRAs of the catalog, for the model that is named before or for all."""
    model = context.params.get("model")
    model = model if isinstance(model, str) else None
    found = _asked(context, lambda client: client.loras(model)) or ()
    return _offered(((lora.lora_id, lora.title) for lora in found), incomplete)


def schedulers(context: typer.Context, incomplete: str) -> Words:
    """Schedulers of the model that is named before, else of any."""
    model = context.params.get("model")
    found = _asked(context, lambda client: client.models()) or ()
    names = {
        name: ""
        for info in found
        if info.model_id == model or not isinstance(model, str)
        for name in info.limits.schedulers
    }
    return _offered(names.items(), incomplete)


def jobs(context: typer.Context, incomplete: str) -> Words:
    """The newest jobs, with their prompts."""
    found = _asked(context, lambda client: client.jobs(limit=MAX_WORDS, ended=True))
    newest = found.jobs if found is not None else ()
    return _offered(((job.job_id, job.spec.prompt) for job in newest), incomplete)


def jobs_under_way(context: typer.Context, incomplete: str) -> Words:
    """Jobs of this person that have not ended."""
    found = _asked(context, lambda client: client.jobs(limit=MAX_WORDS, mine=True))
    newest = found.jobs if found is not None else ()
    return _offered(((job.job_id, job.spec.prompt) for job in newest), incomplete)


def workers(context: typer.Context, incomplete: str) -> Words:
    """Workers that are online."""
    found = _asked(context, lambda client: client.status())
    online = found.workers if found is not None else ()
    return _offered(((worker.worker_id, worker.device) for worker in online), incomplete)


def keys(context: typer.Context, incomplete: str) -> Words:
    """The newest pictures of the library, with their prompts."""
    found = _asked(context, lambda client: client.find("", limit=50)) or ()
    return _offered(((one.key[:12], one.spec.prompt) for one in found), incomplete)


def _offered(words: Iterable[tuple[str, str]], incomplete: str) -> Words:
    offered: Words = []
    for word, text in words:
        if word.startswith(incomplete) and _WORD.fullmatch(word) and len(offered) < MAX_WORDS:
            harmless = " ".join(_NO_HARMLESS.sub(" ", text).split())
            offered.append((word, harmless[:_HELP_CHARACTERS].strip()))
    return offered


def _asked(
    context: typer.Context, question: "Callable[[Client], Coroutine[Any, Any, T]]"
) -> T | None:
    """The server's answer; ``None`` when there is none in time.

    In a thread that nobody waits for any longer than that: looking up a name cannot be cancelled.
    The process ends at once when the words are printed, and the thread with it.
    """
    import threading

    server = context.params.get("server")
    answers: list[T] = []

    def ask() -> None:
        try:
            answers.append(_ask(server if isinstance(server, str) else None, question))
        except Exception:  # noqa: BLE001 - whatever it is, a half-typed line is no place to say so
            return

    thread = threading.Thread(target=ask, name="completion", daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS + 0.1)
    return answers[0] if answers else None


def _ask(server: str | None, question: "Callable[[Client], Coroutine[Any, Any, T]]") -> T:
    import asyncio

    from sdq.client.client import Client
    from sdq.config import load

    address = load().with_flags(client__server=server).client.server

    async def talk() -> T:
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),
            await Client.connect(address, reconnect_seconds=0) as client,
        ):
            return await question(client)

    return asyncio.run(talk())
