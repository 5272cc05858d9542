"""Settings: built-in default < configuration file < environment < flag.

The file is TOML, ``config.toml`` in the home of sdq (``SDQ_HOME``), with one table a part::

    [client]
    server = "gpu-box:7433"

    [server]
    retention_days = 30

`load` reads all of it once; the result is frozen and is handed down. A flag that was given
replaces a value with `Settings.with_flags`.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields, replace
from pathlib import Path
from typing import Any

from sdq.errors import UsageError

GIB = 1024**3
MIB = 1024**2


@dataclass(frozen=True)
class ClientSettings:
    server: str = "127.0.0.1:7433"
    reconnect_seconds: float = 300.0  # how long a server that was lost is looked for; 0: not at all
    pictures: str = "auto"  # how terminals are drawn on; auto: as the terminal understands
    bell: bool = False  # rung when the pictures of `generate` and `attach` are there
    title: bool = False  # of the terminal's window: how far they are


@dataclass(frozen=True)
class ServerSettings:
    host: str = "127.0.0.1"
    port: int = 7433
    redis: str = ""  # empty: a Redis of its own, started beside the server
    redis_port: int = 0  # of its own Redis; 0: any free one, kept from then on
    data_dir: str = ""  # empty: `server` in the home
    retention_days: float = 30.0
    library_max_bytes: int = 10 * GIB
    memory_cache_bytes: int = 64 * MIB  # pictures kept in memory for quick answers
    metrics: str = ""  # HOST:PORT, or PORT of this machine alone, for Prometheus; empty: none
    max_connections: int = 500
    max_prompt_characters: int = 2_000
    max_count: int = 100
    max_queued_jobs: int = 100_000


@dataclass(frozen=True)
class WorkerSettings:
    device: str = "auto"
    dtype: str = "auto"
    compile: bool = False  # the model's UNet, which takes minutes once and makes steps faster
    offload: str = "auto"  # where weights rest: on the device, or off it by parts or by layers
    keep_alive_seconds: float = 0.0  # an idle model leaves memory after so long; 0: it stays
    memory_budget_bytes: int = 0  # of the device, for all models; 0: nearly all that is free
    measure_seconds: float = 60.0  # at install, beyond the proof picture; 0: not at all
    concurrency: int = 0  # jobs in hand at once; 0: what the device draws at once, and some more
    lora_bytes: int = 10 * GIB  # LoRAs on the disk; the one used longest ago leaves first
    drain_seconds: float = 60.0  # how long begun pictures may go on after the first signal


@dataclass(frozen=True)
class Home:
    """Where sdq keeps everything."""

    root: Path

    @property
    def config_file(self) -> Path:
        return self.root / "config.toml"

    @property
    def server_dir(self) -> Path:
        return self.root / "server"

    @property
    def worker_dir(self) -> Path:
        return self.root / "worker"

    @property
    def models_dir(self) -> Path:
        return self.root / "models"

    @property
    def loras_dir(self) -> Path:
        """What a worker has fetched for jobs that asked for it."""
        return self.root / "loras"

    @property
    def run_dir(self) -> Path:
        """Locks, process ids and logs of `sdq up`."""
        return self.root / "run"


@dataclass(frozen=True)
class Settings:
    home: Home
    client: ClientSettings
    server: ServerSettings
    worker: WorkerSettings
    sources: Mapping[str, str]  # "server.port" -> where its value came from

    @property
    def data_dir(self) -> Path:
        """The server's data directory."""
        chosen = self.server.data_dir
        return _expanded(chosen, "server.data_dir") if chosen else self.home.server_dir

    def with_flags(self, **flags: object) -> "Settings":
        """These settings with flags such as ``server__port=7000`` put in; ``None`` is not given.

        Raises `UsageError` for a value out of bounds.
        """
        tables = {name: getattr(self, name) for name in TABLES}
        sources = dict(self.sources)
        for flag, value in flags.items():
            if value is None:
                continue
            table, _, name = flag.partition("__")
            known = {field.name: field for field in fields(TABLES[table])}
            full = f"{table}.{name}"
            checked = _checked(value, known[name], full, full)
            tables[table] = replace(tables[table], **{name: checked})
            sources[full] = "flag"
        return replace(self, **tables, sources=sources)

    def rows(self) -> list[tuple[str, object, str]]:
        """Each setting as (name, value, where it came from)."""
        rows: list[tuple[str, object, str]] = [("home", str(self.home.root), self.sources["home"])]
        for table in TABLES:
            for field in fields(TABLES[table]):
                name = f"{table}.{field.name}"
                rows.append((name, getattr(getattr(self, table), field.name), self.sources[name]))
        return rows


TABLES: dict[str, type[Any]] = {
    "client": ClientSettings,
    "server": ServerSettings,
    "worker": WorkerSettings,
}

_MOST: dict[str, float] = {
    "server.port": 65_535,
    "server.redis_port": 65_535,
    "server.max_prompt_characters": 4_000,  # the protocol's own ceilings
    "server.max_count": 1_000,
    "worker.drain_seconds": 86_400,
    "worker.measure_seconds": 3_600,
}
_LEAST = {
    "server.max_connections": 1,
    "server.max_prompt_characters": 1,
    "server.max_count": 1,
    "server.max_queued_jobs": 1,
}

CHOICES = {
    "client.pictures": ("auto", "kitty", "iterm2", "sixel", "blocks", "off"),
    "worker.dtype": ("auto", "float32", "bfloat16", "float16"),
    "worker.offload": ("auto", "none", "model", "sequential"),
}
_WORDS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
"""How people write yes and no, in whatever case."""

_SHORT_VARIABLES = {"client.server": "SDQ_SERVER", "server.redis": "SDQ_REDIS"}


def variable_of(name: str) -> str:
    """The environment variable of a setting: ``server.port`` is ``SDQ_SERVER_PORT``."""
    return _SHORT_VARIABLES.get(name, "SDQ_" + name.upper().replace(".", "_"))


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """All settings from the file and the environment. Raises `UsageError` naming the culprit."""
    environ = os.environ if environ is None else environ
    home, home_source = _home(environ)
    document = _read(home.config_file)
    sources = {"home": home_source}
    tables: dict[str, Any] = {}
    for table, kind in TABLES.items():
        given = document.pop(table, {})
        if not isinstance(given, dict):
            raise UsageError(f"{home.config_file}: {table} must be a table, [{table}]")
        tables[table] = _fill(table, kind, given, environ, home.config_file, sources)
    if document:
        raise UsageError(
            f"{home.config_file}: unknown table [{next(iter(document))}]",
            hint="known are " + ", ".join(f"[{table}]" for table in TABLES),
        )
    return Settings(home=home, sources=sources, **tables)


def _home(environ: Mapping[str, str]) -> tuple[Home, str]:
    if chosen := environ.get("SDQ_HOME"):
        return Home(_expanded(chosen, "SDQ_HOME").absolute()), "SDQ_HOME"
    from platformdirs import user_data_path  # 3 ms, not needed when SDQ_HOME is set

    return Home(user_data_path("sdq", appauthor=False)), "default"


def _expanded(path: str, where: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # ~nobody
        raise UsageError(f"{where}: {path!r} names an unknown home folder") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        # ValueError: no UTF-8, no TOML, or a number with thousands of digits.
        raise UsageError(
            f"cannot read {path}: {error}", hint="mend the file or move it away"
        ) from error


def _fill(
    table: str,
    kind: type[Any],
    given: dict[str, Any],
    environ: Mapping[str, str],
    file: Path,
    sources: dict[str, str],
) -> Any:
    values: dict[str, object] = {}
    known = {field.name: field for field in fields(kind)}
    for name in given:
        if name not in known:
            raise UsageError(
                f"{file}: unknown setting {name!r} in [{table}]",
                hint="`sdq config` lists all settings",
            )
    for name, field in known.items():
        full = f"{table}.{name}"
        variable = variable_of(full)
        sources[full] = "default"
        if name in given:
            values[name] = _checked(given[name], field, full, f"{file}: {full}")
            sources[full] = str(file)
        if environ.get(variable):
            values[name] = _checked(environ[variable], field, full, variable)
            sources[full] = variable
    return kind(**values)


def _checked(value: object, field: "Field[Any]", name: str, where: str) -> object:
    """A value as the type of its default, inside its bounds, one of its choices."""
    value = _coerce(value, type(field.default), where)
    choices = CHOICES.get(name, ())
    if choices and value not in choices:
        raise UsageError(f"{where}: {value!r} is not one of {', '.join(choices)}")
    if isinstance(value, int | float):
        least, most = _LEAST.get(name, 0), _MOST.get(name, float("inf"))
        if not (least <= value <= most and value < float("inf")):  # not a number fails too
            bounds = f"{least} or more" if most == float("inf") else f"from {least} to {most}"
            raise UsageError(f"{where}: {value!r} is out of bounds, it must be {bounds}")
    return value


def _coerce(value: object, kind: type[Any], where: str) -> object:
    """Text is parsed and a whole number may stand for a float; other types are not bent."""
    coerced = value
    try:
        if isinstance(value, str) and kind is bool:  # bool("false") is true
            coerced = _WORDS.get(value.strip().lower())
        elif (isinstance(value, str) and kind is not str) or (kind is float and type(value) is int):
            coerced = kind(value)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{where}: {value!r} is not {_called(kind)}") from error
    if type(coerced) is not kind:
        raise UsageError(f"{where}: {value!r} is not {_called(kind)}")
    return coerced


def _called(kind: type[Any]) -> str:
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return words.get(kind, kind.__name__)


def split_address(address: str, default_port: int) -> tuple[str, int]:
    """Host and port of ``host``, ``host:port``, ``v6``, ``[v6]:port`` or ``sdq://host:port``."""
    bare = address.strip().removeprefix("sdq://").rstrip("/")
    if bare.startswith("["):
        host, bracket, port_text = bare[1:].partition("]")
        right = bool(bracket) and _is_v6(host) and port_text[:1] in ("", ":")
        port_text = port_text[1:]
    elif bare.count(":") > 1:
        host, port_text, right = bare, "", _is_v6(bare)
    else:
        host, _, port_text = bare.partition(":")
        right = bool(host) and not any(mark in " /@[]?#" or mark < " " for mark in host)
    if not right or (port_text and not _is_port(port_text)):
        raise UsageError(
            f"{address!r} is not the address of a server", hint="write host:port, as gpu-box:7433"
        )
    return host, int(port_text) if port_text else default_port


def _is_v6(text: str) -> bool:
    from ipaddress import IPv6Address  # rarely needed, and 3 ms

    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65_536
