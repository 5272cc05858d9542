"""``sdq fetch``: pictures of the library as files."""

from typing import Annotated

import typer

from sdq.cli import options
from sdq.cli.asking import ask
from sdq.cli.keys import Keys, checked_keys

Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="As for `sdq generate`.",
        show_default="{slug}-{key:8}.png",
    ),
]


def fetch(
    keys: Keys,
    output: Output = None,
    force: options.Force = False,
    server: options.Server = None,
    as_json: options.Json = False,
) -> int:
    """Save pictures of the library as files.

    A key that is of no picture is told, the others are fetched; the exit code is its error's then.

    \b
    Examples:
      sdq fetch 1a2b3c4d -o out.png
      sdq find red circle --all --keys | sdq fetch - -o 'red/{n:04}-{seed}.webp'
    """
    from sdq.cli.fetching import Fetching
    from sdq.cli.files import Outputs

    wanted = checked_keys(keys)
    outputs = Outputs(output, count=len(wanted), force=force)
    outputs.refuse_json(as_json)
    outputs.prepare()
    fetching = Fetching(outputs, as_json=as_json)
    ask(server, lambda client: fetching.run(client, wanted))
    return fetching.code
