"""What `sdq up` hands to its children."""

from pathlib import Path

from sdq.config import load
from sdq.stack.up import environment_of


def test_children_find_the_same_settings(sdq_home: Path) -> None:
    sdq_home.mkdir()
    (sdq_home / "config.toml").write_text("[worker]\nconcurrency = 7\n")
    settings = load().with_flags(server__port=0, worker__device="cpu", server__data_dir="/d")

    found = load(environment_of(settings))

    assert (found.home, found.client, found.server, found.worker) == (
        settings.home,
        settings.client,
        settings.server,
        settings.worker,
    )
