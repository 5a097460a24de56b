"""config.toml as a frozen, typed tree.

`load` reads a file and gives a `Config`, or a `ConfigError` with every fault of the file. The tables
are `Server`, `Admin`, `Log`, `Queue`, `Timeouts`, `Retries`, `Health`, `Discovery`, `Model`, `Backend` and
`Key`; a `Config` is never changed, a reload makes a new one, and so does `expanded`, which puts the servers
that DNS names in the place of the tables that stand for them. Everybody may read it; it imports nothing of
the gateway.
"""

from gateway.config.address import Address
from gateway.config.backend import DIALECTS, Backend, Dialect, Tls
from gateway.config.change import digest, fixed_changes, named_files
from gateway.config.effective import effective
from gateway.config.fault import ConfigError, Fault
from gateway.config.key import Key
from gateway.config.loading import Given, load, parse
from gateway.config.members import Member, Members, expanded, member_name, service_host
from gateway.config.model import Model
from gateway.config.schema import schema
from gateway.config.section import (
    Admin,
    Discovery,
    Health,
    HealthOverrides,
    KeepaliveStyle,
    Log,
    Queue,
    Retries,
    Server,
    TimeoutOverrides,
    Timeouts,
)
from gateway.config.split import Canary, Shadow
from gateway.config.tree import Config

__all__ = [
    "DIALECTS",
    "Address",
    "Admin",
    "Backend",
    "Canary",
    "Config",
    "ConfigError",
    "Dialect",
    "Discovery",
    "Fault",
    "Given",
    "Health",
    "HealthOverrides",
    "KeepaliveStyle",
    "Key",
    "Log",
    "Member",
    "Members",
    "Model",
    "Queue",
    "Retries",
    "Server",
    "Shadow",
    "TimeoutOverrides",
    "Timeouts",
    "Tls",
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
