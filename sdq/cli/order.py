"""What a person asked for, once the flags are understood."""

import msgspec

from sdq.cli.expansion import Expansion
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
    expansion: Expansion = msgspec.field(default_factory=Expansion)

    @property
    def has_many_prompts(self) -> bool:
        """Whether there may be more than one. Raises `UsageError` for a template that cannot be
        expanded."""
        return self.prompt is None or self.expansion.count(self.prompt) > 1

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
    expansion: Expansion | None = None,
) -> Order:
    """An order in the words of the command line: ``-`` is standard input."""
    text = None if prompt == "-" else prompt
    return Order(
        text, draft, new, count, CachePolicy(cache), Priority(priority), wait, timeout_seconds,
        retries, showing, expansion or Expansion(),
    )  # fmt: skip


def random_seed() -> int:
    """A seed that nobody can foresee."""
    from secrets import randbits

    return randbits(32)
