"""Where values come from: flag over environment over file over default, with an error for every key that nobody knows.

A key is a field's name without its `_ms` (its value carries the unit: `300ms`, `15s`), with its section in front:
`raft.election_timeout` in a flag, `[raft] election_timeout` in `coord.toml`, `COORD_RAFT__ELECTION_TIMEOUT` in the environment.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final

from coord_core.config.faults import faults_of, refuse
from coord_core.config.model import LimitsConfig, RaftTimes, ServerConfig, SnapshotsConfig, StorageConfig, TlsConfig

ENVIRONMENT_PREFIX: Final = "COORD_"
#: Variables of the same prefix that are not a server's: the command line's, the client's, and what `coord lock` gives its child.
OTHER_VARIABLES: Final = frozenset(
    {
        "COORD_CONFIG",
        "COORD_CONTEXT",
        "COORD_FENCING_TOKEN",
        "COORD_LOCK_NAME",
        "COORD_NAMESPACE",
        "COORD_OUTPUT",
        "COORD_TIMEOUT",
        "COORD_URL",
    }
)
#: What Kubernetes puts into every container for services named coord...
_KUBERNETES_VARIABLE = re.compile(r"(^|_)SERVICE_(HOST|PORT)(_|$)|(^|_)PORT(_\d+_(TCP|UDP)(_\w+)?)?$")


def _key(field_name: str) -> str:
    return field_name.removesuffix("_ms")


def _options(kind: type, prefix: str = "") -> dict[str, tuple[str, Callable[[Any], Any]]]:
    """Return by key: the path of field names, and how to read a value."""
    found: dict[str, tuple[str, Callable[[Any], Any]]] = {}
    for one in fields(kind):
        if isinstance(one.type, type) and is_dataclass(one.type):
            found.update(_options(one.type, f"{one.name}."))
        else:
            found[prefix + _key(one.name)] = (prefix + one.name, one.metadata["parse"])
    return found


OPTIONS: Final = _options(ServerConfig)


def load_config(
    path: Path | None = None, *, environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> ServerConfig:
    """Return the configuration from flags (by key; None: not given), the environment, the file and the defaults, in that order.

    Raises `InvalidConfig` with all faults: unreadable file, unknown keys (with the nearest known one), bad values, and whatever
    `ServerConfig.validate` finds.
    """
    return load_with_origins(path, environ=environ, flags=flags)[0]


def load_with_origins(
    path: Path | None = None, *, environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> tuple[ServerConfig, dict[str, str]]:
    """Like `load_config`; return also where each value that is no default came from, by key."""
    faults: list[str] = []
    given: dict[str, tuple[str, object]] = {}
    for origin, key, value in [*_from_file(path, faults), *_from_environment(environ or {}, faults), *_from_flags(flags or {})]:
        if key not in OPTIONS:
            faults.append(f"{origin}: there is no such key{_nearest(key)}")
        else:
            given[key] = (origin, value)
    config = _build(given, faults)
    refuse([*faults, *faults_of(config)])
    return config, {key: origin for key, (origin, _) in given.items()}


def _from_file(path: Path | None, faults: list[str]) -> Iterator[tuple[str, str, object]]:
    if path is None:
        return
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        faults.append(f"{path} cannot be read: {error}")
        return
    for key, value in table.items():
        inner = value if isinstance(value, dict) else {"": value}
        for name, one in inner.items():
            full = f"{key}.{name}" if name else key
            yield f"{path}: {full}", full, one


def _from_environment(environ: Mapping[str, str], faults: list[str]) -> Iterator[tuple[str, str, object]]:
    for variable, value in sorted(environ.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in OTHER_VARIABLES:
            continue
        rest = variable.removeprefix(ENVIRONMENT_PREFIX)
        key = rest.lower().replace("__", ".")
        if key == "token":
            faults.append(
                "COORD_TOKEN: an environment is easily read by others; put the token into a file and set COORD_TOKEN_FILE"
            )
        elif key in OPTIONS or not _KUBERNETES_VARIABLE.search(rest):
            yield variable, key, value


def _from_flags(flags: Mapping[str, object]) -> Iterator[tuple[str, str, object]]:
    for key, value in flags.items():
        if value is not None:
            yield f"--{key.replace('_', '-')}", key, value


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key, OPTIONS, n=1, cutoff=0.5)
    if not near:
        near = [known for known in OPTIONS if known.rpartition(".")[2] == key.rpartition(".")[2]]
    return f"; did you mean {near[0]}?" if near else f" (known: {', '.join(OPTIONS)})"


def _build(given: Mapping[str, tuple[str, object]], faults: list[str]) -> ServerConfig:
    sections: dict[str, dict[str, Any]] = {"": {}, "raft": {}, "limits": {}, "snapshots": {}, "storage": {}, "tls": {}}
    for key, (origin, value) in given.items():
        field_path, parse = OPTIONS[key]
        section, _, name = field_path.rpartition(".")
        try:
            sections[section][name] = parse(value)
        except ValueError as error:
            faults.append(f"{origin}: {error}, not {'that' if 'token' in key else repr(value)}")
    return ServerConfig(
        **sections[""],
        raft=RaftTimes(**sections["raft"]),
        limits=LimitsConfig(**sections["limits"]),
        snapshots=SnapshotsConfig(**sections["snapshots"]),
        storage=StorageConfig(**sections["storage"]),
        tls=TlsConfig(**sections["tls"]),
    )
