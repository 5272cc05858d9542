"""``sdq doctor`` and ``sdq worker doctor``: what is wrong here, and the next command to type."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from sdq.cli import options
from sdq.cli.output import plain, print_data, print_json
from sdq.errors import SdqError
from sdq.findings import Finding
from sdq.storage import nearest_there

if TYPE_CHECKING:
    from sdq.config import Settings

_MARKS = {"ok": "ok  ", "note": "note", "problem": "FAIL"}


def doctor(server: options.Server = None, as_json: options.Json = False) -> int:
    """Look at everything on this machine: settings, the server, and what draws here.

    Exit code 1 when something has to be mended.

    \b
    Example:
      sdq doctor --server gpu-box
    """
    chosen = options.settings(client__server=server)
    return _report(_everything(chosen), as_json=as_json)


def doctor_of_worker(
    device: options.Device = None, dtype: options.Dtype = None, as_json: options.Json = False
) -> int:
    """Look at what a worker needs: packages, device, driver, memory, disk, models, Redis.

    Exit code 1 when something has to be mended.

    \b
    Example:
      sdq worker doctor --device cuda
    """
    from sdq.worker.doctor import examine

    chosen = options.settings(worker__device=device, worker__dtype=dtype)
    return _report(examine(chosen.home, chosen.worker), as_json=as_json)


def _everything(chosen: "Settings") -> Iterator[Finding]:
    yield from _software()
    yield _home(chosen)
    yield from _server(chosen)
    if chosen.home.worker_dir.exists():
        from sdq.worker.doctor import examine

        yield from examine(chosen.home, chosen.worker)


def _software() -> Iterator[Finding]:
    import platform

    from sdq import __version__

    text = f"sdq {__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}"
    yield Finding("software", "ok", text)


def _home(chosen: "Settings") -> Finding:
    import os

    home = chosen.home.root
    there = nearest_there(home.absolute())
    if not os.access(there, os.W_OK | os.X_OK):
        text = f"{home} cannot be written"
        return Finding("home", "problem", text, "export SDQ_HOME=/another/place")
    file = chosen.home.config_file
    return Finding("home", "ok", f"{home}" + (f", settings in {file}" if file.exists() else ""))


def _server(chosen: "Settings") -> Iterator[Finding]:
    from sdq.cli.asking import ask

    address = chosen.client.server
    began = time.monotonic()
    try:
        status = ask(address, lambda client: client.status())
    except SdqError as error:
        yield Finding("server", "problem", error.message, "sdq up   or: export SDQ_SERVER=HOST")
        return
    took_ms = (time.monotonic() - began) * 1e3
    yield Finding("server", "ok", f"{status.server} at {address}, answered in {took_ms:.0f} ms")
    if status.redis != "ok":
        yield Finding("server", "problem", f"its Redis: {status.redis}", "sdq status")
    ready = [worker for worker in status.workers if worker.state in ("ready", "drawing")]
    if ready:
        names = ", ".join(f"{worker.worker_id} ({worker.device})" for worker in ready)
        yield Finding("workers", "ok", names)
    else:
        text = "none is ready: pictures that are not in the library wait"
        yield Finding("workers", "note", text, "sdq worker install && sdq worker run")


def _report(findings: Iterable[Finding], *, as_json: bool) -> int:
    """Prints each as it is found; 1 when one of them is a problem."""
    code = 0
    for finding in findings:
        code = 1 if finding.state == "problem" else code
        if as_json:
            print_json(finding._asdict())
            continue
        print_data(f"{_MARKS[finding.state]}  {plain(finding.about):<12} {plain(finding.text)}")
        if finding.command:
            print_data(f"      {'':<12} → {plain(finding.command)}")
        sys.stdout.flush()
    return code
