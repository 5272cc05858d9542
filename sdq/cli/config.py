"""``sdq config``: each setting and where it came from."""

import re

from sdq.cli import options
from sdq.cli.output import print_json, print_table


def config(as_json: options.Json = False) -> None:
    """Show each setting, its value and where it came from. Passwords stay hidden.

    Defaults are overruled by config.toml in the home of sdq, that by SDQ_… variables, those
    by flags.

    \b
    Example:
      SDQ_SERVER=gpu-box:7433 sdq config
    """
    rows = [(name, _public(value), source) for name, value, source in options.settings().rows()]
    if as_json:
        for name, value, source in rows:
            print_json({"name": name, "value": value, "source": source})
    else:
        print_table(("SETTING", "VALUE", "FROM"), rows)


def _public(value: object) -> object:
    """A value without the password of a URL."""
    if not isinstance(value, str) or "://" not in value:
        return value
    without = re.sub(r"(://[^/@]*:).*@", r"\1***@", value)
    return re.sub(r"(password=)[^&]*", r"\1***", without, flags=re.IGNORECASE)
