"""``sdq completion``: what makes a shell complete the words of `sdq`."""

from typing import Annotated, Literal

import typer

from sdq.cli.output import print_data

Shell = Annotated[
    Literal["bash", "zsh", "fish"], typer.Argument(metavar="SHELL", help="bash, zsh or fish.")
]


def completion(shell: Shell) -> None:
    """Print what makes a shell complete commands, flags, and names that the server knows.

    The shell runs it each time it starts; `sdq --install-completion` arranges that by itself.

    \b
    Examples:
      source <(sdq completion bash)                              # in ~/.bashrc
      sdq completion zsh > ~/.zfunc/_sdq                         # in a folder of $fpath
      sdq completion fish > ~/.config/fish/completions/sdq.fish
    """
    from typer._completion_shared import get_completion_script

    print_data(get_completion_script(prog_name="sdq", complete_var="_SDQ_COMPLETE", shell=shell))
