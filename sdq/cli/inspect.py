"""``sdq inspect``: what picture files say of themselves."""

from pathlib import Path
from typing import Annotated

import typer

from sdq.cli import options
from sdq.cli.output import print_data, print_json, tell_error
from sdq.errors import UsageError

Files = Annotated[list[str], typer.Argument(metavar="FILE...", help="PNG, JPEG or WebP files.")]


def inspect(files: Files, as_json: options.Json = False) -> int:
    """Show how picture files were drawn: prompt, model, seed and all the rest. Needs no server.

    Files of A1111, ComfyUI, InvokeAI and others are read too, with `pip install 'sdq[inspect]'`.

    \b
    Examples:
      sdq inspect out.png
      sdq inspect --json *.png | jq .spec.seed
    """
    from sdq.cli.describing import description_of, lines_of

    code = 0
    for number, name in enumerate(files):
        try:
            said = description_of(Path(name))
        except UsageError as error:
            if len(files) == 1:
                raise
            tell_error(error, about="" if name in error.message else name)
            code = code or error.exit_code
            continue
        if as_json:
            print_json(said)
            continue
        for line in [*([""] if number else []), *lines_of(said)]:
            print_data(line)
    return code
