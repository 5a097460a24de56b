"""config.toml as a frozen, typed tree.

`load` reads a file and gives a `Config`, or a `ConfigError` with every fault of the file. The tables
are `Server`, `Admin`, `Log`, `Queue`, `Timeouts`, `Retries`, `Health`, `Discovery`, `Model`, `Backend` and
`Key`; a `Config` is never changed, a reload makes a new one, and so does `expanded`, which puts the servers
that DNS names in the place of the tables that stand for them. Everybody may read it; it imports nothing of
the gateway.
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
