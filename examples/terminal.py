"""Makes docs/terminal*.svg: what a terminal shows, recorded from real runs.

Starts `sdq up` in an empty home, runs the commands of each scene below in a real terminal (tmux,
which must be installed) and draws what is on its screen: at the end, or in the middle of a command
that runs. Run it as ``make terminal``; names of scenes draw only those.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
COLUMNS = 92
WAIT_SECONDS = 120.0
LAST_LINE = "the commands are over"
SHOTS = """\
prompt,seed,steps
a red circle on a white background,1,30
a green square on a white background,2,30
a blue triangle on a white background,3,30
two orange stars on a black background,4,40
three pink hearts on a black background,5,55
a cyan diamond on a black background,6,70
a yellow star on a blue background,7,100
a purple cross on a yellow background,8,85
a white circle on a red background,9,60
a black square on a pink background,10,95
a brown triangle on a green background,11,100
a gray ring on a purple background,12,400
"""


@dataclass(frozen=True)
class Scene:
    """``until``: a pattern on the screen that says when it is drawn, when not at the end.
    ``before``: a command that nobody sees."""

    name: str
    rows: int
    commands: tuple[str, ...]
    until: str = ""
    before: str = ""

    @property
    def target(self) -> Path:
        return ROOT / "docs" / f"{self.name}.svg"


SCENES = (
    Scene(
        "terminal",
        40,
        (
            'sdq generate "a red circle on a blue background" -o out.png',
            'sdq generate "a red circle on a blue background" -o again.png',
            'sdq generate "a yellow star on a black background" -n 3 -o "stars/{n}-{seed}.webp"',
            'sdq generate "a cat" --model shapez',
            "sdq status",
        ),
    ),
    Scene(
        "terminal-generate",
        40,
        (
            'sdq generate "a green triangle on a yellow background" --show -o shown.png',
            'sdq generate "a blue heart on a white background" -n 4 --steps 90 -o "hearts/{n}.png"',
        ),
        until=r"step [3-9]\d",
    ),
    Scene(
        "terminal-batch",
        40,
        (
            "head -n 5 shots.csv",
            "head -n 4 shots.csv | sdq batch - --format csv -o 'shots/{seed:02}-{slug}.png'",
            "sdq plan shots.csv -o 'shots/{seed:02}-{slug}.png'",
            "sdq batch shots.csv -o 'shots/{seed:02}-{slug}.png' --jobs 4 --failed no.csv",
        ),
        until=r"[678] of 12, .*about [1-9]",
    ),
    Scene(
        "terminal-top",
        24,
        ("sdq top",),
        until=r"(?s)[1-9]\d* being drawn, [1-9]\d* waiting.*drawing",
        before='sdq submit "three pink stars on a black background" -n 60 --steps 100',
    ),
    Scene(
        "terminal-find",
        48,
        (
            "sdq find circle",
            "sdq find 'tri*' --since 1h",
            "sdq find '\"black background\"' --keys --limit 2 | sdq fetch - -o found/",
            "sdq show shots/01-*.png",
        ),
        before="sdq cancel --all-mine; sdq batch -q shots.csv -o 'shots/{seed:02}-{slug}.png'",
    ),
)


def wait_for(path: Path, words: str, process: subprocess.Popen[bytes]) -> None:
    """Waits until a file holds the words; ends with the file's text when that never comes."""
    until = time.monotonic() + WAIT_SECONDS
    while not path.exists() or words not in path.read_text():
        if process.poll() is not None or time.monotonic() > until:
            raise SystemExit(path.read_text() if path.exists() else f"{path} did not come")
        time.sleep(0.1)


@contextmanager
def running(home: Path, environ: dict[str, str]) -> Iterator[None]:
    """``sdq up`` until the block ends; ``environ`` knows its address then."""
    log = home / "up.log"
    with log.open("wb") as sink:
        up = subprocess.Popen(["sdq", "up", "--port", "0"], env=environ, stderr=sink)
    try:
        wait_for(log, "sdq is ready", up)
        environ["SDQ_SERVER"] = (home / "server" / "address").read_text().strip()
        yield
    finally:
        up.terminate()
        up.wait(30)


def screen(scene: Scene, folder: Path, environ: dict[str, str]) -> str:
    """What a terminal shows, with its colours, when the scene's moment has come."""
    subprocess.run(
        ["sh", "-c", scene.before], cwd=folder, env=environ, check=False, capture_output=True
    )
    script = folder / f"{scene.name}.sh"
    lines = [
        f"printf '\\033[1m$ %s\\033[0m\\n' {shlex.quote(c)}; {c}; echo; sleep 1"
        for c in scene.commands
    ]
    script.write_text("\n".join([*lines, f"echo {LAST_LINE}", "sleep 600"]))
    tmux = ["tmux", "-L", f"sdq-{os.getpid()}"]
    size = ["-x", str(COLUMNS), "-y", str(scene.rows)]
    command = [*tmux, "new-session", "-d", *size, "-c", str(folder), f"sh {script}"]
    subprocess.run(command, env=environ, check=True)
    try:
        return _in_time(tmux, scene)
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)


def _in_time(tmux: list[str], scene: Scene) -> str:
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        captured = subprocess.run(
            [*tmux, "capture-pane", "-e", "-p"], capture_output=True, text=True, check=True
        ).stdout
        shown = Text.from_ansi(captured).plain
        is_over = LAST_LINE in shown
        if scene.until and is_over:
            raise SystemExit(f"{scene.name}: {scene.until!r} was never on the screen:\n{shown}")
        if is_over or (scene.until and re.search(scene.until, shown)):
            return captured.partition(LAST_LINE)[0].rstrip()
        time.sleep(0.05)
    raise SystemExit(f"{scene.name} took more than {WAIT_SECONDS:g} s:\n{captured}")


def draw(scene: Scene, text: str) -> None:
    with Path(os.devnull).open("w") as nowhere:
        console = Console(
            record=True, width=COLUMNS, force_terminal=True, color_system="truecolor", file=nowhere
        )
        console.print(Text.from_ansi(text), end="\n\n")  # else the last line's _ is cut off
        svg = console.export_svg(title="sdq", unique_id=scene.name)
    scene.target.write_text(svg)
    print(f"{scene.target.relative_to(ROOT)}: {len(svg) // 1000} KB")


def main() -> None:
    names = sys.argv[1:] or [scene.name for scene in SCENES]
    with tempfile.TemporaryDirectory(prefix="sdq-terminal-") as name:
        home = Path(name)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("SDQ_", "TMUX"))}
        environ |= {"SDQ_HOME": name, "PATH": path}
        folder = home / "pictures"
        folder.mkdir()
        (folder / "shots.csv").write_text(SHOTS)
        with running(home, environ):
            for scene in SCENES:
                if scene.name in names:
                    draw(scene, screen(scene, folder, environ))


if __name__ == "__main__":
    main()
