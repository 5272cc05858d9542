"""``sdq man``."""

import sys

from sdq.cli.output import write_data


def man() -> int:
    """Show the manual page of sdq; into a file or a pipe it goes as roff.

    \b
    Examples:
      sdq man
      sdq man > ~/.local/share/man/man1/sdq.1
    """
    from sdq.cli.man_page import man_page

    page = man_page().encode()
    if sys.stdout.isatty() and (code := _shown(page)) is not None:
        return code
    write_data(page)
    return 0


def _shown(page: bytes) -> int | None:
    """What `man` makes of it; ``None``: there is no `man` on this machine."""
    import shutil
    import subprocess

    if (program := shutil.which("man")) is None:
        return None
    return subprocess.run([program, "-l", "-"], input=page, check=False).returncode
