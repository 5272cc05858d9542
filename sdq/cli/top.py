"""``sdq top``."""

from typing import Annotated

import typer

from sdq.cli import options
from sdq.errors import UsageError

Once = Annotated[bool, typer.Option("--once", help="Show it once and end.")]


def top(once: Once = False, server: options.Server = None, as_json: options.Json = False) -> int:
    """Watch a server live: workers, who waits, the library, what happened last.

    q or Ctrl-C ends it. A server that is started again is found again. With --json, an object each
    second, or one with --once.

    \b
    Examples:
      sdq top
      sdq top --once --json | jq .library
    """
    import sys

    if not (once or as_json or sys.stdout.isatty()):
        raise UsageError(
            "sdq top draws on a terminal, and standard output is none",
            hint="--once shows it once, --json is for programs",
        )
    client = options.settings(client__server=server).client
    if once or as_json:
        from sdq.cli.top_lines import tell

        return options.run(tell(client, once=once, as_json=as_json))
    from sdq.cli.top_screen import watch

    return options.run(watch(client))
