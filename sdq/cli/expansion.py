"""`--expand` and its companions: from one prompt to those that its template stands for."""

from collections.abc import Iterator

import msgspec

from sdq.cli.templates import (
    MAX_PROMPTS,
    Parsed,
    Template,
    Wildcards,
    looks_like_a_template,
    no_wildcards,
)
from sdq.errors import UsageError

HINT = "a prompt looks like a template: --expand draws each of its alternatives"


class Expansion(msgspec.Struct):
    """How prompts are expanded; `is_asked_for` tells whether they are at all."""

    is_asked_for: bool = False
    random: int | None = None  # so many of each template; None: all of them
    most: int = MAX_PROMPTS
    seed: int = 0
    wildcards: Wildcards = no_wildcards
    parsed: Parsed = {}  # its wildcards, as far as prompts have named them
    hint: str = ""  # what to tell a person who may have forgotten the flag

    def of(self, prompt: str) -> Iterator[str]:
        """The prompts of a template. Raises `UsageError` for one that cannot be expanded."""
        if not self.is_asked_for:
            return iter((prompt,))
        template = Template(prompt, self.wildcards, self.parsed)
        if self.random is not None:
            return template.some(self.random, self.seed)
        return template.all(self.most)

    def count(self, prompt: str) -> int:
        """How many those are."""
        if not self.is_asked_for:
            return 1
        count = Template(prompt, self.wildcards, self.parsed).count
        return count if self.random is None else min(self.random, count)

    def look_at(self, prompt: str) -> None:
        """Remembers whether a prompt looks as if the flag had been forgotten."""
        if not self.is_asked_for and not self.hint and looks_like_a_template(prompt):
            self.hint = HINT


def expansion_of(
    expand: bool, random: int | None, most: int | None, wildcards: str | None, seed: int | None
) -> Expansion:
    """The words of the command line. ``seed``: that of the pictures, which random prompts share.

    Raises `UsageError` for flags that need ``--expand`` without it.
    """
    if not expand:
        flags = {"--random": random, "--max": most, "--wildcards": wildcards}
        for flag, value in flags.items():
            if value is not None:
                raise UsageError(f"{flag} is about templates: give --expand too")
        return Expansion()
    if random is not None and most is None and random > MAX_PROMPTS:
        raise UsageError(f"--random {random}: the limit is {MAX_PROMPTS}", hint="raise it by --max")
    from sdq.cli.wildcards import WildcardFolder

    return Expansion(
        True,
        random,
        MAX_PROMPTS if most is None else most,
        seed or 0,
        no_wildcards if wildcards is None else WildcardFolder(wildcards),
    )
