"""``--timeout``: what takes longer is left, and said so."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from sdq.errors import DeadlinePassed


@asynccontextmanager
async def deadline(
    seconds: float | None, *, left: Callable[[], str], hint: str
) -> AsyncGenerator[None, None]:
    """Cancels what it holds after so many seconds and raises `DeadlinePassed` then.

    ``left`` says what became of the jobs, asked when all is tidied up. ``None``: no limit.
    """
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlinePassed(f"not done within {seconds:g} s: {left()}", hint=hint) from None
