"""``sdq worker``: the machine that draws."""

from typing import TYPE_CHECKING, Annotated

import typer

from sdq.cli import options
from sdq.cli.asking import ask
from sdq.cli.installing import reporter
from sdq.cli.output import as_duration, plain, print_json, tell
from sdq.cli.workers import drain

if TYPE_CHECKING:
    from sdq.config import Settings

app = typer.Typer()

Start = Annotated[bool, typer.Option("--start", help="Go on to run the worker.")]


@app.callback()
def worker() -> None:
    """Turn this machine into one that draws.

    \b
    Example:
      sdq worker install --server gpu-box && sdq worker run
    """


@app.command("install")
def install_worker(
    server: options.Server = None,
    model: options.Model = None,
    device: options.Device = None,
    start: Start = False,
    as_json: options.Json = False,
) -> int:
    """Fetch a model that the server names, verify it, and draw a first picture as a proof.

    \b
    Examples:
      sdq worker install --server gpu-box:7433
      sdq worker install --model shapes --start
    """
    chosen = options.settings(worker__device=device)
    from sdq.worker.install import install

    setup = ask(server, lambda client: client.worker_setup(model))
    with reporter(as_json) as report:
        done = install(setup, chosen.home, device=chosen.worker.device, report=report)
    if as_json:
        print_json(
            {
                "phase": "installed",
                "model_id": done.model_id,
                "folder": str(done.folder),
                "worker_id": done.worker_id,
                "canary_seconds": done.canary_seconds,
                "already": done.already,
            }
        )
    else:
        how = "was installed already" if done.already else "is installed"
        tell(
            f"{plain(done.model_id)} {how}: worker {plain(done.worker_id)}, "
            f"a picture in {as_duration(done.canary_seconds)}"
        )
    if start:
        return _run(chosen)
    if not as_json:
        tell("next: sdq worker run")
    return 0


@app.command("run")
def run_worker(concurrency: options.Concurrency = None, device: options.Device = None) -> int:
    """Draw what the server asks for, until Ctrl-C.

    \b
    Example:
      sdq worker run --device cuda
    """
    return _run(options.settings(worker__concurrency=concurrency, worker__device=device))


app.command()(drain)


def _run(chosen: "Settings") -> int:
    from sdq.worker.app import run

    return run(
        chosen.home,
        concurrency=chosen.worker.concurrency,
        device=chosen.worker.device,
        drain_seconds=chosen.worker.drain_seconds,
    )
