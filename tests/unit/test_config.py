"""Settings: default < file < environment < flag, each wrong value named with its place."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdq.config import TABLES, Settings, load, split_address, variable_of
from sdq.errors import UsageError
from sdq.protocol.constants import DEFAULT_PORT, MAX_COUNT
from sdq.spec import MAX_PROMPT_CHARACTERS


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def write(home: Path, text: str) -> None:
    (home / "config.toml").write_text(text, "utf-8")


def loaded(home: Path, **variables: str) -> Settings:
    return load({"SDQ_HOME": str(home), **variables})


def refused(home: Path, text: str = "", **variables: str) -> UsageError:
    write(home, text)
    with pytest.raises(UsageError) as caught:
        loaded(home, **variables)
    return caught.value


def test_the_defaults(home: Path) -> None:
    settings = loaded(home)
    assert settings.server.port == DEFAULT_PORT
    assert settings.client.server == f"127.0.0.1:{DEFAULT_PORT}"
    assert settings.server.host == "127.0.0.1"
    assert settings.data_dir == home / "server"
    assert settings.sources["server.port"] == "default"
    assert settings.sources["home"] == "SDQ_HOME"
    assert settings.server.max_prompt_characters <= MAX_PROMPT_CHARACTERS
    assert settings.server.max_count <= MAX_COUNT


def test_without_a_home_of_ones_own() -> None:
    settings = load({})
    assert settings.sources["home"] == "default"
    assert settings.home.root.is_absolute()


def test_file_then_environment_then_flag(home: Path) -> None:
    write(home, "[server]\nport = 1000\nhost = 'a'\nretention_days = 7\n[client]\nserver = 'x:1'\n")
    settings = loaded(home, SDQ_SERVER_PORT="2000", SDQ_SERVER_HOST="b", SDQ_SERVER="y:2")
    assert (settings.server.port, settings.server.host) == (2000, "b")
    assert settings.server.retention_days == 7.0
    assert settings.client.server == "y:2"
    flagged = settings.with_flags(server__port=3000, client__server=None)
    assert flagged.server.port == 3000
    assert flagged.client.server == "y:2"
    assert settings.server.port == 2000  # frozen
    assert flagged.sources["server.port"] == "flag"
    assert flagged.sources["server.host"] == "SDQ_SERVER_HOST"
    assert flagged.sources["server.retention_days"] == str(home / "config.toml")
    assert flagged.sources["server.max_count"] == "default"


def test_every_setting_has_a_row_and_a_variable_of_its_own(home: Path) -> None:
    rows = loaded(home).rows()
    names = [name for name, _, _ in rows]
    assert names[0] == "home"
    assert len(set(names)) == len(names)
    variables = [variable_of(name) for name in names[1:]] + ["SDQ_HOME"]
    assert len(set(variables)) == len(variables)
    assert {"SDQ_SERVER", "SDQ_REDIS", "SDQ_SERVER_PORT"} <= set(variables)
    assert {name.split(".")[0] for name in names[1:]} == set(TABLES)


def test_a_variable_set_to_nothing_is_not_set(home: Path) -> None:
    settings = loaded(home, SDQ_SERVER="", SDQ_SERVER_PORT="")
    assert settings.client.server == f"127.0.0.1:{DEFAULT_PORT}"
    assert settings.sources["server.port"] == "default"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[servre]\nport = 1", "servre"),
        ("port = 1", "port"),
        ("server = 1", "[server]"),
        ("[server]\nprot = 1", "prot"),
        ("[server]\nport = true", "server.port"),
        ("[server]\nport = 1.0", "server.port"),
        ("[server]\nport = 'many'", "server.port"),
        ("[server]\nport = [1]", "server.port"),
        ("[server]\nport = -1", "server.port"),
        ("[server]\nport = 65536", "server.port"),
        ("[server]\nhost = 1", "server.host"),
        ("[server]\nretention_days = inf", "server.retention_days"),
        ("[server]\nretention_days = nan", "server.retention_days"),
        ("[server]\nretention_days = -1.0", "server.retention_days"),
        ("[server]\nretention_days = false", "server.retention_days"),
        ("[server]\nretention_days = 2026-11-23", "server.retention_days"),
        ("[server]\nretention_days = 1" + "0" * 400, "server.retention_days"),
        ("[server]\nmax_prompt_characters = 4001", "4000"),
        ("[server]\nmax_count = 0", "server.max_count"),
        ("[server]\nmax_connections = 0", "server.max_connections"),
        ("[worker]\nconcurrency = -1", "worker.concurrency"),
        ("[worker]\ncompile = 1", "worker.compile"),
        ("[worker]\ncompile = 'perhaps'", "worker.compile"),
        ("[worker]\ndtype = 'half'", "auto, float32, bfloat16, float16"),
        ("[worker]\ndtype = ''", "worker.dtype"),
        ("[worker]\noffload = true", "worker.offload"),
        ("[worker]\nkeep_alive_seconds = -1", "worker.keep_alive_seconds"),
        ("[worker]\nmemory_budget_bytes = 1.5", "worker.memory_budget_bytes"),
        ("[server", "config.toml"),
        ("[server]\nport = 1" + "0" * 5000, "config.toml"),
        ("a = " + "[" * 100_000, "config.toml"),
    ],
)
def test_a_wrong_file_is_named(home: Path, text: str, names: str) -> None:
    error = refused(home, text)
    assert names in error.message
    assert "config.toml" in error.message
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SDQ_SERVER_PORT", "http"),
        ("SDQ_SERVER_PORT", "1.5"),
        ("SDQ_SERVER_PORT", "-7"),
        ("SDQ_SERVER_PORT", "70000"),
        ("SDQ_SERVER_PORT", "1" * 5_000),
        ("SDQ_SERVER_RETENTION_DAYS", "inf"),
        ("SDQ_SERVER_RETENTION_DAYS", "nan"),
        ("SDQ_SERVER_RETENTION_DAYS", "a month"),
        ("SDQ_WORKER_CONCURRENCY", "-1"),
        ("SDQ_WORKER_COMPILE", "2"),
        ("SDQ_WORKER_COMPILE", "falsch"),
        ("SDQ_WORKER_DTYPE", "fp16"),
        ("SDQ_WORKER_OFFLOAD", "None"),
        ("SDQ_WORKER_MEMORY_BUDGET_BYTES", "6GiB"),
        ("SDQ_WORKER_MEASURE_SECONDS", "3601"),
    ],
)
def test_a_wrong_variable_is_named(home: Path, variable: str, value: str) -> None:
    assert variable in refused(home, **{variable: value}).message


@pytest.mark.parametrize(
    "flags",
    [{"server__port": 70_000}, {"server__port": True}, {"server__retention_days": float("nan")}],
)
def test_flags_keep_to_the_bounds(home: Path, flags: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"server\."):
        loaded(home).with_flags(**flags)


@pytest.mark.parametrize(
    ("word", "means"),
    [
        *(("true", True), ("True", True), ("YES", True), ("on", True), ("1", True)),
        *(("false", False), ("False", False), ("no", False), (" off ", False), ("0", False)),
    ],
)
def test_yes_and_no(home: Path, word: str, means: bool) -> None:
    assert loaded(home, SDQ_WORKER_COMPILE=word).worker.compile is means
    write(home, f"[worker]\ncompile = {str(not means).lower()}\n")
    assert loaded(home).worker.compile is not means
    assert loaded(home).with_flags(worker__compile=means).worker.compile is means


def test_how_a_worker_draws(home: Path) -> None:
    settings = loaded(home, SDQ_WORKER_DTYPE="bfloat16", SDQ_WORKER_KEEP_ALIVE_SECONDS="600")
    assert (settings.worker.dtype, settings.worker.offload) == ("bfloat16", "auto")
    assert settings.worker.keep_alive_seconds == 600.0
    with pytest.raises(UsageError, match=r"worker\.offload: 'disk' is not one of auto, none"):
        settings.with_flags(worker__offload="disk")


def test_bytes_that_are_no_text(home: Path) -> None:
    (home / "config.toml").write_bytes(b"[server]\nhost = '\xff'")
    with pytest.raises(UsageError, match=r"config\.toml"):
        loaded(home)


def test_a_folder_where_the_file_should_be(home: Path) -> None:
    (home / "config.toml").mkdir()
    with pytest.raises(UsageError, match=r"config\.toml"):
        loaded(home)


def test_homes(home: Path) -> None:
    with pytest.raises(UsageError, match="SDQ_HOME"):
        load({"SDQ_HOME": "~nobody-has-this-name/x"})
    assert load({"SDQ_HOME": "~/x"}).home.root == Path.home() / "x"
    assert load({"SDQ_HOME": "x"}).home.root.is_absolute()
    chosen = loaded(home, SDQ_SERVER_DATA_DIR="~/pictures")
    assert chosen.data_dir == Path.home() / "pictures"


def test_the_ceilings_are_those_of_the_protocol(home: Path) -> None:
    at_the_top = {
        "SDQ_SERVER_MAX_PROMPT_CHARACTERS": str(MAX_PROMPT_CHARACTERS),
        "SDQ_SERVER_MAX_COUNT": str(MAX_COUNT),
    }
    assert loaded(home, **at_the_top).server.max_count == MAX_COUNT
    assert "bounds" in refused(home, SDQ_SERVER_MAX_COUNT=str(MAX_COUNT + 1)).message


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("gpu-box", "gpu-box", DEFAULT_PORT),
        ("gpu-box:80", "gpu-box", 80),
        ("gpu-box:", "gpu-box", DEFAULT_PORT),
        (" gpu-box:80\n", "gpu-box", 80),
        ("sdq://gpu-box:80/", "gpu-box", 80),
        ("127.0.0.1:65535", "127.0.0.1", 65535),
        ("::1", "::1", DEFAULT_PORT),
        ("[::1]", "::1", DEFAULT_PORT),
        ("[::1]:80", "::1", 80),
        ("sdq://[fe80::1%eth0]:80", "fe80::1%eth0", 80),
    ],
)
def test_addresses(address: str, host: str, port: int) -> None:
    assert split_address(address, DEFAULT_PORT) == (host, port)


@pytest.mark.parametrize(
    "address",
    ["", " ", ":80", "[]:80", "[::1", "[::1]80", "[host]:80", "a:b", "a:0", "a:65536",
     "a:-1", "a:1:2", "a:８０", "a:" + "1" * 5_000, "http://a:80", "a/b", "me@a:80", "a b",
     "a:80?x", "a\tb", "[::1]:80:90"],
)  # fmt: skip
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UsageError, match="not the address of a server") as caught:
        split_address(address, DEFAULT_PORT)
    assert "host:port" in caught.value.hint


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_an_error(text: str) -> None:
    try:
        host, port = split_address(text, DEFAULT_PORT)
    except UsageError:
        return
    assert host
    assert 0 < port < 65536
