"""``sdq worker``: the machine that draws."""

from typing import TYPE_CHECKING, Annotated

import typer

from sdq.cli import options
from sdq.cli.asking import ask
from sdq.cli.doctor import doctor_of_worker
from sdq.cli.installing import reporter, say_installed
from sdq.cli.output import plain, print_json, print_table, tell
from sdq.cli.workers import drain
from sdq.errors import SdqError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sdq.client.client import Client
    from sdq.config import Settings
    from sdq.protocol.messages import WorkerSettings
    from sdq.worker.models import InstalledModel

app = typer.Typer()

Start = Annotated[bool, typer.Option("--start", help="Go on to run the worker.")]
ModelId = Annotated[str, typer.Argument(metavar="MODEL", help="Its id, as `sdq worker list` has.")]


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
    model: options.Models = None,
    start: Start = False,
    as_json: options.Json = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    compile: options.Compile = None,
    offload: options.Offload = None,
    measure: options.MeasureSeconds = None,
) -> int:
    """Fetch models that the server names, prove them with a picture each, and measure them.

    Models that are installed already stay.

    \b
    Examples:
      sdq worker install --server gpu-box:7433
      sdq worker install --model sd15 --model sdxl --start
    """
    chosen = options.settings(
        worker__device=device,
        worker__dtype=dtype,
        worker__compile=compile,
        worker__offload=offload,
        worker__measure_seconds=measure,
    )
    from sdq.worker.install import install
    from sdq.worker.need import short_of_memory
    from sdq.worker.profile import options_of

    wanted = list(dict.fromkeys(model)) if model else [None]
    setups = ask(server, lambda client: _setups(client, wanted))
    installed: list[str] = []
    for setup in setups:
        if note := short_of_memory(setup.model, chosen.worker):
            tell(plain(note))
        try:
            with reporter(as_json) as report:
                done = install(
                    setup,
                    chosen.home,
                    options=options_of(chosen.worker),
                    measure_seconds=chosen.worker.measure_seconds,
                    report=report,
                )
        except SdqError:
            if installed:
                tell(f"installed before this failed: {', '.join(map(plain, installed))}")
            raise
        say_installed(done, as_json)
        installed.append(done.model_id)
    if start:
        return _run(chosen)
    if not as_json:
        tell(" ".join(["next: sdq worker run", *_flags(chosen)]))
    return 0


@app.command("run")
def run_worker(
    concurrency: options.Concurrency = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    compile: options.Compile = None,
    offload: options.Offload = None,
    keep_alive: options.KeepAlive = None,
    memory_budget: options.MemoryBudget = None,
) -> int:
    """Draw what the server asks for, until Ctrl-C.

    What the installation has measured counts while it is drawn with in the same way.

    \b
    Examples:
      sdq worker run --device cuda
      sdq worker run --keep-alive 600 --memory-budget 12GiB
    """
    return _run(
        options.settings(
            worker__concurrency=concurrency,
            worker__device=device,
            worker__dtype=dtype,
            worker__compile=compile,
            worker__offload=offload,
            worker__keep_alive_seconds=keep_alive,
            worker__memory_budget_bytes=options.size_bytes(memory_budget, "--memory-budget"),
        )
    )


@app.command("list")
def list_installed(as_json: options.Json = False) -> None:
    """List the models that are installed here, and what was measured of them.

    \b
    Example:
      sdq worker list
    """
    from sdq.worker import models

    installed = models.load_config(options.settings().home).models
    if as_json:
        import msgspec

        for one in installed:
            print_json({"model_id": one.manifest.model_id, **msgspec.to_builtins(one.profile)})
        return
    print_table(
        ("MODEL", "AT ONCE", "S/STEP", "S/STEP EACH", "DTYPE", "OFFLOAD", "WEIGHTS", "DEVICE"),
        [_row(one) for one in installed],
    )


@app.command("remove")
def remove_model(model: ModelId) -> None:
    """Take a model out of this worker. Its files stay, and a worker that runs keeps it until
    its next start.

    \b
    Example:
      sdq worker remove sdxl
    """
    from sdq.worker.install import remove

    removed = remove(options.settings().home, model)
    tell(f"{plain(model)} is removed; its files stay in {plain(str(removed.folder))}")
    if removed.left:
        tell(f"still installed: {', '.join(map(plain, removed.left))}")
    else:
        tell("it was the last one: a worker has nothing to draw with until `sdq worker install`")


app.command()(drain)
app.command("doctor")(doctor_of_worker)


async def _setups(client: "Client", ids: "Sequence[str | None]") -> "list[WorkerSettings]":
    """All asked for before anything is fetched: a wrong id costs no download."""
    return [await client.worker_setup(model_id) for model_id in ids]


def _run(chosen: "Settings") -> int:
    from sdq.worker.app import run

    return run(chosen.home, chosen.worker)


def _flags(chosen: "Settings") -> list[str]:
    """The flags of an install with which a run draws in the same way."""
    flags = []
    for name in ("device", "dtype", "compile", "offload"):
        if chosen.sources[f"worker.{name}"] == "flag":
            value = getattr(chosen.worker, name)
            if isinstance(value, bool):
                flags.append(f"--{name}" if value else f"--no-{name}")
            else:
                flags.append(f"--{name} {plain(value)}")
    return flags


def _row(installed: "InstalledModel") -> tuple[object, ...]:
    from sdq.cli.output import as_bytes

    profile = installed.profile
    alone, together = profile.step_seconds(1), profile.step_seconds(profile.at_once)
    return (
        installed.manifest.model_id,
        profile.at_once,
        "-" if alone is None else f"{alone:.3g}",
        "-" if together is None else f"{together:.3g}",
        profile.dtype,
        profile.offload,
        as_bytes(profile.weights_bytes),
        profile.device_label,
    )
