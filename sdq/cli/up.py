"""``sdq up``: everything on this machine."""

from sdq.cli import options


def up(
    host: options.Host = None,
    port: options.Port = None,
    redis: options.Redis = None,
    data_dir: options.DataDir = None,
    device: options.Device = None,
    concurrency: options.Concurrency = None,
    model: options.Models = None,
) -> int:
    """Run Redis, a server and a worker on this machine, until Ctrl-C.

    \b
    Examples:
      sdq up
      sdq up --host 0.0.0.0 --device cuda
      sdq up --model sd15 --model sdxl
    """
    chosen = options.settings(
        server__host=host,
        server__port=port,
        server__redis=redis,
        server__data_dir=data_dir,
        worker__device=device,
        worker__concurrency=concurrency,
    )
    from sdq.stack.up import run_up

    return run_up(chosen, models=model or ())
