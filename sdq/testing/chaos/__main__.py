"""``python -m sdq.testing.chaos``: exit code 0 when nothing was lost, 1 otherwise."""

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from sdq.errors import SdqError
from sdq.stack.signals import INTERRUPTED_EXIT_CODE, StopSignals
from sdq.testing.chaos.plan import FULL, REAL, SHORT, Scale
from sdq.testing.chaos.run import run

_SCALES = {"full": FULL, "short": SHORT, "real": REAL}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    names = options.scales or ["full", "real"]
    if unknown := set(names) - set(_SCALES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    seed = secrets.randbits(32) if options.seed is None else options.seed
    root = Path(tempfile.mkdtemp(prefix="sdq-chaos-"))
    is_good = False
    try:
        for name in names:
            began = time.monotonic()
            is_good = asyncio.run(_run_once(seed, _SCALES[name], root / name))
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
            if not is_good:
                return 1
    except KeyboardInterrupt:
        return INTERRUPTED_EXIT_CODE
    except (SdqError, TimeoutError) as error:
        hint = error.hint if isinstance(error, SdqError) else "see the logs"
        print(f"the stack does not stand: {error or 'it took too long'}; {hint}", file=sys.stderr)
        return 1
    finally:
        if is_good and not options.keep:
            shutil.rmtree(root, ignore_errors=True)
        else:
            print(f"logs, pictures and tables of this run: {root}", flush=True)
    return 0


async def _run_once(seed: int, scale: Scale, folder: Path) -> bool:
    """Whether all was well. Raises `KeyboardInterrupt` once a signal has ended it."""
    verdicts = []

    async def work() -> None:
        verdicts.append(await run(seed, scale, folder, _tell))

    with StopSignals() as signals:
        await signals.interrupt(work())
    if not verdicts:
        raise KeyboardInterrupt
    print("\n".join(verdicts[0].lines()), flush=True)
    return verdicts[0].is_good


def _tell(text: str) -> None:
    print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sdq.testing.chaos", description=__doc__)
    parser.add_argument(
        "scales", nargs="*", metavar="SCALE", help="full, short, real; default: full and real"
    )
    parser.add_argument("--seed", type=int, help="of a run to repeat; default: a new one")
    parser.add_argument("--keep", action="store_true", help="keep the files of a good run too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
