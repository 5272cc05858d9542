"""``sdq verify``: whether a file is drawn again as it is."""

from pathlib import Path
from typing import Annotated

import typer

from sdq.cli import options

File = Annotated[str, typer.Argument(metavar="FILE", help="A picture that sdq drew.")]
Timeout = Annotated[
    float | None, typer.Option(metavar="SECONDS", min=0.001, help="Give up and cancel after.")
]


def verify(
    file: File,
    timeout: Timeout = None,
    server: options.Server = None,
    as_json: options.Json = False,
) -> int:
    """Draw a picture again from what its file says, and compare the two.

    identical: every pixel. rounding: no colour differs by more than 2 of 255, as between two
    devices. different: anything else; the exit code is 1 then, and also when the server's model
    or LoRA files are not those that drew the picture. Nothing is kept of what is drawn.

    \b
    Examples:
      sdq verify out.png
      sdq verify out.png --json | jq -r .verdict
    """
    from sdq.cli.verifying import verify_file

    client = options.settings(client__server=server).client
    return options.run(verify_file(client, Path(file), timeout, as_json=as_json))
