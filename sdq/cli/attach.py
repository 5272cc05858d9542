"""``sdq attach``."""

from typing import Annotated

import typer

from sdq.cli import options
from sdq.cli.job_ids import JobIds, read_job_ids

Timeout = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", min=0.001, help="Leave after. The jobs go on."),
]


def attach(
    jobs: JobIds,
    output: options.Output = None,
    timeout: Timeout = None,
    preview: options.Preview = False,
    show: options.Show = False,
    bell: options.Bell = False,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    server: options.Server = None,
) -> int:
    """Wait for jobs, whoever asked for them, and save their pictures.

    Leaving with Ctrl-C stops no job.

    \b
    Examples:
      sdq attach 01m84kh4qevc8yvybbef9jnb4w -o out.png
      sdq submit "a red circle" -n 4 | sdq attach - -o circles/
    """
    job_ids = read_job_ids(jobs)
    from sdq.cli.attaching import fetch
    from sdq.cli.files import Outputs
    from sdq.cli.output import Sink
    from sdq.cli.showing import showing_of

    outputs = Outputs(output, count=1, many_prompts=len(job_ids) > 1, force=force)
    outputs.refuse_json(as_json)
    client = options.settings(client__server=server).client
    outputs.prepare()
    sink = Sink(as_json=as_json, quiet=quiet)
    showing = showing_of(client, preview=preview, show=show, bell=bell, quiet=quiet)
    fetching = fetch(client, job_ids, outputs, sink, timeout_seconds=timeout, showing=showing)
    return options.run(fetching)
