"""What a person asked for, once the flags are understood."""

import msgspec

from sdq.cli.showing import Showing
from sdq.protocol.vocabulary import CachePolicy, Priority
from sdq.spec import SpecDraft


class Order(msgspec.Struct, frozen=True):
    """``prompt`` ``None``: each line of standard input."""

    prompt: str | None
    draft: SpecDraft  # its prompt does not count
    new: bool  # a random seed for each prompt
    count: int
    cache: CachePolicy
    priority: Priority
    wait: bool = True
    timeout_seconds: float | None = None
    retries: int = 0
    showing: Showing = Showing()

    def draft_of(self, prompt: str) -> SpecDraft:
        seed = random_seed() if self.new else self.draft.seed
        return msgspec.structs.replace(self.draft, prompt=prompt, seed=seed)


def order_of(
    prompt: str,
    draft: SpecDraft,
    new: bool,
    count: int,
    cache: str,
    priority: str,
    wait: bool = True,
    timeout_seconds: float | None = None,
    retries: int = 0,
    showing: Showing = Showing(),  # noqa: B008 - frozen
) -> Order:
    """An order in the words of the command line: ``-`` is standard input."""
    text = None if prompt == "-" else prompt
    choice = CachePolicy(cache), Priority(priority)
    return Order(text, draft, new, count, *choice, wait, timeout_seconds, retries, showing)


def random_seed() -> int:
    """A seed that nobody can foresee."""
    from secrets import randbits

    return randbits(32)
