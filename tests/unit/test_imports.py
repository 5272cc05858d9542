"""Start-up is part of the product: who loads what, looked at in processes of their own."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "aiosqlite", "celery", "diffusers", "httpx", "huggingface_hub", "kombu", "numpy",
    "prometheus_client", "pydantic", "redis", "requests", "sqlite3", "torch", "transformers",
}  # fmt: skip
"""Never in a client: each costs between 30 ms and seconds at every start."""

REPORT = "import sys, json; print(json.dumps([name for name in sys.modules if '.' not in name]))"


def loaded_by(code: str) -> set[str]:
    """The top-level packages in a fresh interpreter after ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{REPORT}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "module",
    ["sdq", "sdq.errors", "sdq.config", "sdq.spec", "sdq.metadata", "sdq.protocol.stream",
     "sdq.client.client", "sdq.cli.main"],
)  # fmt: skip
def test_the_light_side_loads_nothing_heavy(module: str) -> None:
    assert loaded_by(f"import {module}") & HEAVY == set()


def test_the_package_itself_loads_next_to_nothing() -> None:
    assert (
        loaded_by("import sdq") & {"msgspec", "msgpack", "PIL", "rich", "typer", "asyncio"} == set()
    )


@pytest.mark.parametrize("module", ["sdq.protocol.connection", "sdq.protocol.messages", "sdq.spec"])
def test_the_protocol_itself_knows_no_asyncio(module: str) -> None:
    assert "asyncio" not in loaded_by(f"import {module}")


def test_metadata_loads_pillow_only_when_it_is_needed() -> None:
    assert "PIL" not in loaded_by("import sdq.metadata")


@pytest.mark.parametrize("module", ["sdq.broker", "sdq.server.server", "sdq.stack.up"])
def test_the_server_side_never_loads_torch(module: str) -> None:
    assert loaded_by(f"import {module}") & {"torch", "diffusers", "transformers"} == set()


RUN = """
from sdq.cli.main import main
code = main({arguments!r})  # `run` would end the process
assert code in {codes!r}, code
"""


@pytest.mark.parametrize(
    ("arguments", "codes"),
    [
        (["--help"], (0,)),
        (["generate", "--help"], (0,)),
        (["generate", "a red circle", "--server", "127.0.0.1:1", "-o", "/dev/null"], (2, 3)),
    ],
)
def test_commands_of_a_client_load_nothing_heavy(
    arguments: list[str], codes: tuple[int, ...]
) -> None:
    assert loaded_by(RUN.format(arguments=arguments, codes=codes)) & HEAVY == set()
