"""The sections of config.toml that stand once: server, admin, log, queue, timeouts, retries, health, ..."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from gateway.config.address import Address
from gateway.config.value_types import (
    Buffer,
    Bytes,
    HostNames,
    Listen,
    Memory,
    ModelName,
    NameServers,
    Origins,
    ProbePath,
    Seconds,
    Share,
    ValueType,
    Wait,
)

KeepaliveStyle: TypeAlias = Literal["comments", "events", "chunks", "none"]


class Section(BaseModel):
    """Base of every table: frozen, strict (no text taken for a number), closed (no unknown keys)."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


class ServerSettings(Section):
    """The data plane: where clients connect."""

    listen: Listen = "127.0.0.1:8000"
    """Address of the data plane: `host:port`, `[::1]:port` or `unix:/path`. Port 0 lets the system choose."""
    reuse_port: bool = False
    """Whether another gateway may listen on the same addresses, of both planes, beside this one: for restarts
    without a refused connection. Any process of the same user may do so, too. See deployment.md."""
    auth: Literal["keys", "none"] | None = None
    """`keys`: a key is needed. `none`: nobody needs one. Unset: keys are needed once there are `[[keys]]`."""
    native_auth: Literal["keys", "none"] = "keys"
    """Whether the native door (`POST /`) needs a key too; its old clients cannot send headers."""
    hosts: HostNames = ()
    """Names by which clients may ask a gateway without keys, besides those of this machine: names that the
    `Host` header may have, without a port. `["*"]`: any, where nobody browses the web. See security.md."""
    cors_origins: Origins = ()
    """Origins whose web pages may use the data plane, such as `https://chat.example.org`. `["*"]`: all, which
    needs keys. Empty: no CORS headers, and without keys no page of another origin."""
    default_model: ModelName | None = None
    """Model of requests that name none, and of the native door (which else takes the first model)."""
    max_body: Bytes = 33_554_432
    """Largest request body, in bytes; more is refused with 413, as is more than a third of `memory`."""
    memory: Memory | None = None
    """Bytes that all requests may hold, from the first byte of a body to the end. Unset: half of what the
    limit of the container or process leaves free at the start, and 256 MiB at most. See deployment.md."""
    memory_wait: Seconds = 10.0
    """How long a request for which there is no memory waits, with its body unread (seconds). Then 503."""
    max_header_bytes: Bytes = 65_536
    """Largest head of a request, in bytes; more is refused with 431."""
    max_headers: int = Field(default=100, ge=1, le=10_000)
    """Most headers of a request; more is refused with 431."""
    header_timeout: Seconds = 10.0
    """How long a request's head may take, from the connection or its own first byte (seconds). Then 408."""
    body_timeout: Seconds = 30.0
    """How long a request's body may pause (seconds). Then 408."""
    body_total: Seconds = 600.0
    """How long a body may take (seconds), not counting the time in which it is not read. Then 408."""
    body_rate: int = Field(default=1024, ge=0, le=2**31)
    """The least bytes a second that a body must come with, from `body_timeout` on; else 408. 0: any."""
    keepalive: Seconds = 75.0
    """How long a connection may be idle between two requests (seconds). Longer than the same time of a proxy
    or load balancer before the gateway: most of them have 60."""
    write_timeout: Seconds = 60.0
    """How long a client may take nothing of an answer that waits for it (seconds). Then it is cut off. A
    client that vanishes without closing its connection is noticed after the same time, and 30 s at least."""
    send_buffer: Buffer = 65_536
    """Bytes of an answer that the system may hold for a client that reads slowly (Linux takes twice that of
    memory for it). Left to itself it takes megabytes for each, which count against a container's limit."""
    max_connections: int = Field(default=2048, ge=0, le=1_000_000)
    """Most connections of clients at a time; more are refused with 503. 0: no limit."""
    max_connections_per_peer: int = Field(default=512, ge=0, le=1_000_000)
    """The same for one address. Behind a proxy all clients have the proxy's. 0: no limit."""
    stream_head_wait: Wait = 2.0
    """How long a stream's headers wait for the backend's first sign of life, so that errors keep their status
    (seconds)."""
    drain: Wait = 25.0
    """How long running requests may go on after SIGTERM, and after `drain_delay` (seconds)."""
    drain_delay: Wait = 0.0
    """How long new requests are still served after SIGTERM, while `/readyz` already says 503 (seconds). For
    load balancers that go by `/readyz` and need a while to see it. See deployment.md."""
    watch: bool = False
    """Whether a change of the config file, or of a file that it names, is taken over without a signal.
    SIGHUP always has it read again."""

    @property
    def address(self) -> Address:
        """`listen`, parsed."""
        return Address.parse(self.listen)


class AdminSettings(Section):
    """The admin plane: probes, metrics, version."""

    listen: Listen = "127.0.0.1:9000"
    """Address of the admin plane; it asks for no key, so keep it on loopback or a private network."""

    @property
    def address(self) -> Address:
        """`listen`, parsed."""
        return Address.parse(self.listen)


class LogSettings(Section):
    """What is logged; prompts, answers and keys never are."""

    format: Literal["auto", "json", "console", "terminal"] = "auto"
    """`json`: one object a line. `console`: `name=value` for every field. `terminal`: short lines for people.
    `auto`: `terminal` where standard output is a terminal, else `json`."""
    level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    """The least important messages that are logged."""
    access: bool = True
    """Whether every request gets a line."""


class QueueSettings(Section):
    """The fair queue in front of each model."""

    length: int = Field(default=256, ge=0, le=100_000)
    """Requests that may wait for a model; more are refused with 503, those of the key first that has most of
    them there. 0: nobody waits."""
    bytes: Bytes = 67_108_864
    """Bytes of requests that may wait for all models together; more is refused with 503."""
    timeout: Seconds = 60.0
    """How long a request may wait for a slot, then it is answered with 503 (seconds)."""
    keepalive: Seconds = 10.0
    """Time between two comments, or events, that keep a waiting stream open (seconds)."""
    keepalive_style: KeepaliveStyle | None = None
    """What keeps a waiting stream open: `comments`, which clients skip; `events` of the type `queue`, which
    tell its place; `chunks` with an empty delta, for clients that take every line for JSON; `none`: nothing.
    Unset: as `events` says."""
    events: bool = False
    """The same as `keepalive_style = "events"`. Most SDKs take these events for chunks: leave it off, and let
    those who want them send `x-gateway-queue-events: true`."""

    @property
    def style(self) -> KeepaliveStyle:
        """`keepalive_style`, or what `events` makes of it."""
        return self.keepalive_style or ("events" if self.events else "comments")


class TimeoutsSettings(Section):
    """How long a backend may take. `total` ends every request, whatever the others say."""

    connect: Seconds = 1.0
    """To open a connection to a backend (seconds)."""
    first_token: Seconds = 120.0
    """From sending a request to the first piece of a streamed answer (seconds). Servers that answer whole are
    silent until they have finished: for them only `total` counts."""
    between_tokens: Seconds = 30.0
    """Between two pieces of a streamed answer (seconds). Only content counts, here and for `first_token`:
    comments, empty pieces and single bytes do not."""
    total: Seconds = 600.0
    """For one try on one backend, from beginning to end (seconds)."""

    def merged(self, *overrides: TimeoutOverrides | None) -> TimeoutsSettings:
        """Give these time-outs with what the overrides set; later overrides win."""
        changes: dict[str, float] = {}
        for override in overrides:
            changes |= override.model_dump(exclude_none=True) if override else {}
        return self.model_copy(update=changes)


class TimeoutOverrides(Section):
    """Time-outs of one model or one backend; what is unset is taken from `[timeouts]`."""

    connect: Seconds | None = None
    """Overrides `timeouts.connect` (seconds)."""
    first_token: Seconds | None = None
    """Overrides `timeouts.first_token` (seconds)."""
    between_tokens: Seconds | None = None
    """Overrides `timeouts.between_tokens` (seconds)."""
    total: Seconds | None = None
    """Overrides `timeouts.total` (seconds)."""


class RetriesSettings(Section):
    """Repeats on another backend, only before the first piece of an answer has gone to the client."""

    attempts: int = Field(default=2, ge=1, le=3)
    """Tries in all, the first one included; 1 never repeats. A request that meets a connection just being
    closed is sent once more besides; see failover.md."""
    budget: Share = 0.2
    """Largest share of requests, over ten seconds, that may be repeats, so that a failing site is not made to
    work twice."""
    least: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False), ValueType("a number a second")] = 10.0
    """Repeats a second that are allowed besides that share, so that a quiet gateway can repeat at all."""


class HealthSettings(Section):
    """How a backend is found dead, and alive again. See health.md."""

    probes: bool = True
    """Whether backends are probed. Without, only requests tell how they are: where these fail the backend is
    tried out, and one that is out gets one user's request from time to time."""
    interval: Seconds = 2.0
    """Time between two probes of a backend that has nothing to do for us (seconds)."""
    timeout: Seconds = 2.0
    """How long a probe may take (seconds). Servers that others use too are silent while they generate: let
    it be longer than their answers."""
    fall: int = Field(default=3, ge=1, le=100)
    """Failures in a row that put a backend out. A refused connection does at once."""
    rise: int = Field(default=2, ge=1, le=100)
    """Good signs in a row that bring a backend back; after the first it gets one request at a time."""
    slow_start: Wait = 10.0
    """Time over which a backend that has come back gets its slots back, one by one (seconds). 0: at once."""

    def merged(self, overrides: HealthOverrides) -> HealthSettings:
        """Give these settings with what a backend overrides."""
        return self.model_copy(update=overrides.model_dump(exclude_none=True, exclude={"path"}))


class HealthOverrides(Section):
    """Health checks of one backend; what is unset is taken from `[health]`."""

    path: ProbePath | None = None
    """Path of a cheap GET, behind the url without its `/v1`; any status below 500 will do. Unset: what the
    dialect's servers answer."""
    probes: bool | None = None
    """Overrides `health.probes`."""
    interval: Seconds | None = None
    """Overrides `health.interval` (seconds)."""
    timeout: Seconds | None = None
    """Overrides `health.timeout` (seconds)."""
    fall: int | None = Field(default=None, ge=1, le=100)
    """Overrides `health.fall`."""
    rise: int | None = Field(default=None, ge=1, le=100)
    """Overrides `health.rise`."""
    slow_start: Wait | None = None
    """Overrides `health.slow_start` (seconds)."""


class DiscoverySettings(Section):
    """How backends with `discover` are looked up in DNS. See discovery.md."""

    nameservers: NameServers = ()
    """Name servers to ask, in this order; names are then complete as they are written. Empty: those of
    `/etc/resolv.conf`, with its search list."""
    timeout: Seconds = 5.0
    """How long a question may take, all servers and repeats together (seconds)."""
    min_ttl: Seconds = 5.0
    """An answer is good for its TTL, but for this long at least (seconds). Also the time until a question
    that failed is asked again."""
    max_ttl: Seconds = 60.0
    """The longest that an answer is good for, whatever its TTL (seconds)."""
