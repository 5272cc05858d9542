"""Flags that several commands have in common, said once."""

import inspect
from collections.abc import Callable
from typing import Any

Command = Callable[..., int]


def taking(**parts: Callable[..., Any]) -> Callable[[Command], Command]:
    """Puts flags in the place of a command's parameters.

    Each parameter that ``parts`` names gets what its function makes of flags: those that are the
    function's own parameters, as Typer reads them. They stand where that parameter stands::

        @taking(draft=draft_of)  # --model, --steps …
        def generate(prompt: Prompt, *, draft: SpecDraft, count: Count = 1) -> int:
    """
    flags = {name: inspect.signature(part).parameters for name, part in parts.items()}

    def taken(command: Command) -> Command:
        def run(**values: Any) -> int:
            made = {
                name: part(**{flag: values.pop(flag) for flag in flags[name]})
                for name, part in parts.items()
            }
            return command(**values, **made)

        own = inspect.signature(command).parameters
        for name in parts:
            if name not in own:
                raise TypeError(f"{command.__name__} has no parameter {name!r}")
        shown: list[inspect.Parameter] = []
        for name, parameter in own.items():
            shown += flags[name].values() if name in parts else [parameter]
        keywords = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in shown]
        run.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return taken
