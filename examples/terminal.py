"""Makes docs/terminal.svg: what a terminal shows, recorded from real runs.

Starts `sdq up` in an empty home, runs the commands below in a real terminal (tmux, which must be
installed) and draws what is on its screen at the end. Run it as ``make terminal``.
"""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
COLUMNS, ROWS = 92, 40
COMMANDS = (
    'sdq generate "a red circle on a blue background" -o out.png',
    'sdq generate "a red circle on a blue background" -o again.png',
    'sdq generate "a yellow star on a black background" -n 3 -o "stars/{n}-{seed}.webp"',
    'sdq generate "a cat" --model shapez',
    "sdq status",
)
START_SECONDS = 180.0


def wait_for(path: Path, words: str, process: subprocess.Popen[bytes]) -> None:
    """Waits until a file holds the words; ends with the file's text when that never comes."""
    until = time.monotonic() + START_SECONDS
    while not path.exists() or words not in path.read_text():
        if process.poll() is not None or time.monotonic() > until:
            raise SystemExit(path.read_text() if path.exists() else f"{path} did not come")
        time.sleep(0.1)


def screen(folder: Path, environ: dict[str, str], process: subprocess.Popen[bytes]) -> str:
    """The terminal's screen, with its colours, after all commands."""
    script = folder / "script.sh"
    lines = [f"printf '\\033[1m$ %s\\033[0m\\n' {shlex.quote(c)}; {c}; echo" for c in COMMANDS]
    script.write_text("\n".join([*lines, "echo done > finished", "sleep 60"]))
    tmux = ["tmux", "-L", f"sdq-{os.getpid()}"]
    size = ["-x", str(COLUMNS), "-y", str(ROWS)]
    command = [*tmux, "new-session", "-d", *size, "-c", str(folder), f"sh {script}"]
    subprocess.run(command, env=environ, check=True)
    try:
        wait_for(folder / "finished", "done", process)
        captured = subprocess.run(
            [*tmux, "capture-pane", "-e", "-p"], capture_output=True, text=True, check=True
        )
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)
    return captured.stdout.rstrip()


def draw(text: str) -> None:
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, force_terminal=True, file=nowhere)
        console.print(Text.from_ansi(text))
        target = ROOT / "docs" / "terminal.svg"
        target.write_text(console.export_svg(title="sdq"))
    print(target.relative_to(ROOT))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="sdq-terminal-") as home:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environ = os.environ | {"SDQ_HOME": home, "PATH": path}
        log = Path(home) / "up.log"
        with log.open("wb") as sink:
            up = subprocess.Popen(["sdq", "up", "--port", "0"], env=environ, stderr=sink)
        try:
            wait_for(log, "sdq is ready", up)
            environ["SDQ_SERVER"] = (Path(home) / "server" / "address").read_text().strip()
            folder = Path(home) / "pictures"
            folder.mkdir()
            draw(screen(folder, environ, up))
        finally:
            up.terminate()
            up.wait(30)


if __name__ == "__main__":
    main()
