"""``sdq batch`` and ``sdq plan``."""

from typing import TYPE_CHECKING

from sdq.cli import options
from sdq.cli import picture_options as flags
from sdq.cli import template_options as templates
from sdq.cli.batch import flags as batch_flags
from sdq.cli.generate import Cache, NoWait, Retry, Timeout
from sdq.cli.taking import taking

if TYPE_CHECKING:
    from sdq.spec import SpecDraft


@taking(draft=flags.draft_of, expanding=templates.expanding_of)
def batch(
    file: batch_flags.File,
    *,
    output: batch_flags.Output = None,
    format: batch_flags.Format = None,
    jobs: batch_flags.Jobs = 8,
    failed: batch_flags.Failed = None,
    dry_run: batch_flags.DryRun = False,
    force: batch_flags.Force = False,
    draft: "SpecDraft",
    count: flags.Count = 1,
    expanding: templates.Expanding,
    cache: Cache = "prefer",
    priority: flags.Priority = "normal",
    timeout: Timeout = None,
    retry: Retry = 0,
    no_wait: NoWait = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    server: options.Server = None,
) -> int:
    """Draw the lines of a file; like make, only what is missing.

    A line is a prompt, or a row with columns: prompt, negative, model, steps,
    guidance, width, height, size, scheduler, seed, loras, count, output.
    What it leaves out is as the flags say.

    Paths go to standard output. The exit code is 1 when any line failed.

    \b
    Examples:
      sdq batch prompts.txt -o 'out/{line:04}-{slug}.png'
      sdq batch shots.csv --steps 20 --failed failed.csv
      jq -c '{prompt, seed}' shots.json | sdq batch - --format jsonl -o out/
    """
    from sdq.cli.batch.job import BatchJob, run_batch, run_plan
    from sdq.cli.batch.lines import Understanding
    from sdq.cli.batch.running import BatchOrder
    from sdq.cli.output import Sink
    from sdq.protocol.vocabulary import CachePolicy, Priority

    how = Understanding(draft, count, expanding(draft.seed))
    settings = options.settings(client__server=server).client
    order = BatchOrder(
        jobs, CachePolicy(cache), Priority(priority), not no_wait, retry, settings.reconnect_seconds
    )
    job = BatchJob(file, format, how, order, output, force, failed, timeout, settings)
    run = run_plan if dry_run else run_batch
    return options.run(run(job, Sink(as_json=as_json, quiet=quiet)))


@taking(draft=flags.draft_of, expanding=templates.expanding_of)
def plan(
    file: batch_flags.File,
    *,
    output: batch_flags.Output = None,
    format: batch_flags.Format = None,
    force: batch_flags.Force = False,
    draft: "SpecDraft",
    count: flags.Count = 1,
    expanding: templates.Expanding,
    cache: Cache = "prefer",
    timeout: Timeout = None,
    as_json: options.Json = False,
    server: options.Server = None,
) -> int:
    """Say what `sdq batch` would do, and how long that takes.

    What is up to date, in the library, in flight, new, or cannot be drawn.
    Nothing is drawn. The exit code is 1 when a line cannot be.

    \b
    Examples:
      sdq plan prompts.txt
      sdq plan shots.csv --steps 50 --json | jq 'select(.event == "plan").device_seconds'
    """
    from sdq.cli.batch.job import BatchJob, run_plan
    from sdq.cli.batch.lines import Understanding
    from sdq.cli.batch.running import BatchOrder
    from sdq.cli.output import Sink
    from sdq.protocol.vocabulary import CachePolicy

    order = BatchOrder(cache=CachePolicy(cache))
    how = Understanding(draft, count, expanding(draft.seed))
    settings = options.settings(client__server=server).client
    job = BatchJob(file, format, how, order, output, force, None, timeout, settings)
    return options.run(run_plan(job, Sink(as_json=as_json)))
