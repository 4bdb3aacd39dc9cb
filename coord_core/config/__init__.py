"""The configuration of a server: what can be set, in which unit, and what fits together.

The rule: all faults are reported at once, each in words that say what to change.  `ServerConfig` is plain immutable data;
`load_config` gathers it once at start, flag over environment over file over default, and the rest of the code never looks at the
environment or a file again.

- `model`: what can be set, with units and defaults.
- `faults`: what must fit together.
- `files`: whether the files that it names can be used.
- `load`: where values come from.
- `values`: how one value is written.
"""

from coord_core.config.faults import LOST_FOUNDER, NAME
from coord_core.config.files import file_faults
from coord_core.config.load import OPTIONS, load_config, load_with_origins
from coord_core.config.model import LimitsConfig, RaftTimes, ServerConfig, SnapshotsConfig, StorageConfig, TlsConfig
from coord_core.config.values import format_address, parse_address, parse_duration_ms

__all__ = [
    "LOST_FOUNDER",
    "NAME",
    "LimitsConfig",
    "OPTIONS",
    "RaftTimes",
    "ServerConfig",
    "SnapshotsConfig",
    "StorageConfig",
    "TlsConfig",
    "file_faults",
    "format_address",
    "load_config",
    "load_with_origins",
    "parse_address",
    "parse_duration_ms",
]
