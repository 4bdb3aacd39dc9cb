"""How one value is written: text or TOML in, a field's type out, or a `ValueError` that says what was expected."""

import re
from pathlib import Path
from typing import Final

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)")
_UNIT_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")


def parse_duration_ms(value: object) -> int:
    """Return the milliseconds of `300ms`, `15s`, `1.5m` or `1h`.  A number without a unit is refused: it could mean either."""
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError("expected a duration with its unit, such as 300ms or 15s")
    return round(float(found[1]) * _UNIT_MS[found[2]])


def parse_address(value: str) -> tuple[str, int]:
    """Return host and port of `host:port` or `[v6]:port`."""
    host, colon, port = value.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65_535:
        raise ValueError("expected host:port")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected text")
    return value


def parse_number(value: object) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("expected a whole number")
    return value


def parse_switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUE + _FALSE:
        return value.lower() in _TRUE
    raise ValueError("expected true or false")


def parse_list(value: object) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError("expected a list of text (in flags and the environment: separated by commas)")
    return tuple(part.strip() for part in parts if part.strip())


def parse_path(value: object) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("expected a path")
    return Path(value)
