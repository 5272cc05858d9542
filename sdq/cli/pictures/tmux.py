"""What tmux tells of the terminal around it."""

from typing import NamedTuple

TIMEOUT_SECONDS = 0.5

_SAYS = (
    "tmux",
    "show-options",
    "-Apqv",
    "allow-passthrough",
    ";",
    "display-message",
    "-p",
    "#{client_termname}\n#{client_termtype}",
)


class Around(NamedTuple):
    """``lets_through``: escape sequences in an envelope reach the terminal; ``names``: its TERM,
    and what it calls itself, in lower case."""

    lets_through: bool
    names: str

    @property
    def is_kitty(self) -> bool:
        """Whether it is one of those that know kitty's placeholders."""
        return "kitty" in self.names or "ghostty" in self.names


def around() -> Around:
    """Asks tmux, some milliseconds. A tmux that does not answer lets nothing through."""
    import subprocess  # 6 ms, within tmux only

    try:
        asked = subprocess.run(
            _SAYS, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
            errors="replace", stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return Around(False, "")
    lines = asked.stdout.lower().splitlines() if asked.returncode == 0 else []
    return Around(lines[:1] in (["on"], ["all"]), " ".join(lines[1:]))
