"""config.toml as an immutable, typed tree.

`tree`: `Config`, the whole file; `section`: the tables that occur once; `backend`: a `[[backends]]` table;
`model`: a `[[models]]` table; `key`: a `[[keys]]` table; `traffic_split`: canaries and shadows; `address`:
where a plane listens; `value_types`: the kinds of value a key may hold; `loading`: from a file to a
`Config`, with every problem reported at once; `interpolation`: `${NAME}` in texts; `files`: secrets and
certificates that are named; `syntax`: what is wrong with a text that is not TOML; `lines`: where each key
stands; `fault`: problems, and the error that carries them; `messages`: problems in words; `partial`: the
readable rest of a file with problems; `rules`: rules that join several keys; `paths`: paths that a dialect
must have; `loops`: backends that are the gateway itself; `warnings`: what is allowed but doubtful;
`binding`: whether an address is free; `call_urls`: which URLs of a backend are called; `members`:
discovered backends as part of a configuration; `reloadable`: what a reload may change; `effective`: the
configuration with all defaults, as TOML; `schema`: JSON Schema; `reference`: the tables of
docs/configuration.md.

Rule: Every room may read a configuration; this room imports nothing of the gateway. A `Config` is never
changed.
"""

from gateway.config.address import Address
from gateway.config.backend import DIALECTS, BackendSettings, Dialect, TlsSettings
from gateway.config.effective import effective
from gateway.config.fault import ConfigError, ConfigFault
from gateway.config.key import KeySettings
from gateway.config.loading import Given, load, parse
from gateway.config.members import Members, ServiceMember, expanded, member_name, service_host
from gateway.config.model import ModelSettings
from gateway.config.reloadable import digest, fixed_changes, named_files
from gateway.config.schema import schema
from gateway.config.section import (
    AdminSettings,
    DiscoverySettings,
    HealthOverrides,
    HealthSettings,
    KeepaliveStyle,
    LogSettings,
    QueueSettings,
    RetriesSettings,
    ServerSettings,
    TimeoutOverrides,
    TimeoutsSettings,
)
from gateway.config.traffic_split import CanarySettings, ShadowSettings
from gateway.config.tree import Config

__all__ = [
    "DIALECTS",
    "Address",
    "AdminSettings",
    "BackendSettings",
    "CanarySettings",
    "Config",
    "ConfigError",
    "ConfigFault",
    "Dialect",
    "DiscoverySettings",
    "Given",
    "HealthOverrides",
    "HealthSettings",
    "KeepaliveStyle",
    "KeySettings",
    "LogSettings",
    "Members",
    "ModelSettings",
    "QueueSettings",
    "RetriesSettings",
    "ServerSettings",
    "ServiceMember",
    "ShadowSettings",
    "TimeoutOverrides",
    "TimeoutsSettings",
    "TlsSettings",
    "digest",
    "effective",
    "expanded",
    "fixed_changes",
    "load",
    "member_name",
    "named_files",
    "parse",
    "schema",
    "service_host",
]
