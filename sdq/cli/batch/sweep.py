"""``sdq sweep``: combinations of values, on one sheet."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdq.cli import options
from sdq.cli import picture_options as flags
from sdq.cli import template_options as templates
from sdq.cli.batch import flags as batch_flags
from sdq.cli.generate import Cache, NoWait, Retry, Timeout
from sdq.cli.taking import taking

if TYPE_CHECKING:
    from sdq.cli.batch.axes import Sweep
    from sdq.cli.batch.columns import BatchLine
    from sdq.cli.batch.job import HowToRun
    from sdq.cli.batch.lines import AnyLine
    from sdq.cli.batch.targets import Targets
    from sdq.cli.output import Sink

Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="What to draw.")]


def _values(name: str, of: str) -> object:
    return typer.Option(name, metavar=of, show_default=False, rich_help_panel=flags.PICTURE)


Models = Annotated[str | None, _values("--model", "ID,…")]
Schedulers = Annotated[str | None, _values("--scheduler", "NAME,…")]
Sizes = Annotated[str | None, _values("--size", "WxH,…")]
Seeds = Annotated[str | None, _values("--seed", "N,…")]
Steps = Annotated[str | None, _values("--steps", "N,…")]
Guidances = Annotated[str | None, _values("--guidance", "X,…")]
Grid = Annotated[
    str, typer.Option("--grid", metavar="FILE", help="The sheet: a .png, .jpg or .webp file.")
]
Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="PATTERN",
        help="Write each picture too, as `sdq batch` does. Default: the sheet only.",
        show_default=False,
    ),
]


@taking(expanding=templates.expanding_of)
def sweep(
    prompt: Prompt,
    *,
    grid: Grid,
    output: Output = None,
    model: Models = None,
    negative: flags.Negative = "",
    steps: Steps = None,
    guidance: Guidances = None,
    size: Sizes = None,
    scheduler: Schedulers = None,
    lora: flags.Loras = None,
    seed: Seeds = None,
    expanding: templates.Expanding,
    jobs: batch_flags.Jobs = 8,
    cache: Cache = "prefer",
    priority: flags.Priority = "normal",
    timeout: Timeout = None,
    retry: Retry = 0,
    no_wait: NoWait = False,
    force: batch_flags.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    server: options.Server = None,
) -> int:
    """Draw all combinations of values, and put them on one labelled sheet.

    The last parameter with several values goes across, the others down.

    \b
    Examples:
      sdq sweep "a red circle" --steps 5,10,20 --guidance 3,7 --grid sheet.png
      sdq sweep "a {red|green} circle" --expand --seed 1,2,3 --grid sheet.webp -o cells/
    """
    draft = flags.draft_of(negative=negative, lora=lora)
    from sdq.cli.batch.axes import sweep_of
    from sdq.cli.batch.job import HowToRun
    from sdq.cli.batch.running import BatchOrder
    from sdq.cli.batch.sheet import refuse_foreign
    from sdq.cli.batch.targets import Targets
    from sdq.cli.output import Sink
    from sdq.protocol.vocabulary import CachePolicy, Priority

    first_seed = (seed or "").partition(",")[0].strip()
    template_seed = int(first_seed) if first_seed.isdecimal() else None
    expansion = expanding(template_seed)
    lists = {
        "model": model, "scheduler": scheduler, "size": size, "seed": seed, "steps": steps,
        "guidance": guidance,
    }  # fmt: skip
    chosen = sweep_of(draft, list(expansion.of(prompt)), lists)
    refuse_foreign(Path(grid), force=force)
    policy = CachePolicy(cache)
    keeps = policy in (CachePolicy.PREFER, CachePolicy.ONLY)
    targets = Targets(output, force=force, keeps=keeps, writes=output is not None)
    settings = options.settings(client__server=server).client
    order = BatchOrder(
        jobs, policy, Priority(priority), not no_wait, retry, settings.reconnect_seconds
    )
    how = HowToRun(order, timeout, settings)
    sink = Sink(as_json=as_json, quiet=quiet)
    return options.run(_run(chosen, prompt, Path(grid), how, targets, sink))


async def _run(
    chosen: "Sweep", title: str, grid: Path, how: "HowToRun", targets: "Targets", sink: "Sink"
) -> int:
    from sdq.cli.batch.failures import Failures
    from sdq.cli.batch.job import run_lines
    from sdq.cli.batch.report import Report
    from sdq.cli.batch.sheet import Sheet
    from sdq.protocol.job_messages import PlannedPicture

    sheet = Sheet(title, chosen.columns, chosen.rows)
    lines = chosen.lines()

    def collect(line: "BatchLine", _: PlannedPicture, path: Path | None, png: bytes | None) -> None:
        data = png if png is not None or path is None else path.read_bytes()
        if data is not None:
            sheet.put(line.number - 1, data)

    report = Report(sink, Failures(None, None), total=len(lines), on_picture=collect)
    await run_lines(_all(lines), how, targets, report, sink)
    code = report.end()
    if not report.counts.done:
        return code
    sheet.save(grid)
    if sink.as_json:
        sink.record({"event": "grid", "path": str(grid)})
    else:
        sink.path(str(grid), f"{len(chosen.rows)} × {len(chosen.columns)}")
    return code


async def _all(lines: "list[BatchLine]") -> "AsyncGenerator[AnyLine, None]":
    for line in lines:
        yield line
