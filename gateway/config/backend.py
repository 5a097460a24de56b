"""Backend: one model server, how to reach it and the habits of its dialect."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from gateway.config.call_urls import CallUrls, calls_of
from gateway.config.section import HealthOverrides, Section, TimeoutOverrides
from gateway.config.value_types import (
    Buffer,
    CallPath,
    FilePath,
    IpAddresses,
    Label,
    ModelName,
    ModelNames,
    Secret,
    Tokens,
    Url,
    tuple_of,
)

Dialect = Literal[
    "chatglm",
    "chatglm2",
    "chatglm2-openai",
    "chatglm3",
    "chatglm3-native",
    "glm4",
    "glm4v",
    "chatglm-cpp",
    "chatglm-cpp-native",
    "chatglm-stream",
    "openai",
]
"""The wire format a backend speaks."""

Capabilities = Annotated[tuple[Literal["tools", "structured", "vision"], ...], BeforeValidator(tuple_of)]
"""What an OpenAI-like server can do by itself."""

ToolTexts = Annotated[tuple[Literal["glm-xml", "glm4"], ...], BeforeValidator(tuple_of)]
"""Formats of calls in the text of a server without a tool parser."""

Discover = Literal["dns", "dns4", "dns6", "srv"]
"""What is asked of DNS to find the servers of one table."""

DIALECTS: tuple[str, ...] = get_args(Dialect)

_SLOTS = {"glm4": 8, "openai": 8}
"""Servers that batch; all others generate one answer at a time, and more only wait inside them."""

CHATGLM_CPP = ("chatglm-cpp", "chatglm-cpp-native")

DIALECT_KEYS: dict[str, tuple[str, ...]] = {
    "variant": ("chatglm3",),
    "v3_stream": ("chatglm3",),
    "v3_tools": ("chatglm3",),
    "v3_system": ("chatglm3",),
    "glm4_join": ("glm4",),
    "glm4_stream": ("glm4",),
    "capabilities": ("openai",),
    "repair_tools": ("openai",),
    "family": CHATGLM_CPP,
    "prompt_window": CHATGLM_CPP,
}
"""Keys that only some dialects know, and which these are."""


def default_slots(fields: dict[str, Any]) -> int:
    """Give the number of requests a server of this dialect can work on at once."""
    return _SLOTS.get(str(fields.get("dialect")), 1)


class TlsSettings(Section):
    """TLS towards a backend with an `https` URL. Certificates are always verified."""

    ca_file: FilePath | None = None
    """Certificates of the authority that signed the backend's, PEM. Unset: the system's authorities."""
    cert_file: FilePath | None = None
    """Our own certificate, PEM, where the backend asks for one."""
    key_file: FilePath | None = None
    """The private key of `cert_file`, PEM. Unset: it is looked for in `cert_file`."""


class BackendSettings(Section):
    """One model server process, or with `discover` several. The backends of one model share its queue."""

    name: Label
    """Name in logs, metrics and `x-gateway-backend`."""
    url: Url
    """Where it listens: `http` or `https`, host, port, and a path if it has one. OpenAI's base URL (`.../v1`,
    `.../api/paas/v4`) and the address of the endpoint itself are understood; `gateway check` prints what is
    called."""
    path: CallPath | None = None
    """The path of the POST, behind the url, where what `gateway check` prints is not right. It may have a
    query."""
    addresses: IpAddresses = ()
    """Where to connect, tried in this order, instead of looking the url's host up. Its name still goes into
    `Host` and is the one that certificates are checked for."""
    discover: Discover | None = None
    """Make every server that DNS knows under the url's host a backend of its own, named `NAME-0`, `NAME-1`
    and so on, with the settings of this table: each A and AAAA record (`dns`), A records only (`dns4`), AAAA
    records only (`dns6`), or each SRV record with its port, weight and priority (`srv`). See discovery.md."""
    max_discovered: int = Field(default=32, ge=1, le=1024)
    """With `discover`: most backends that are made of this table; more records are left out, and told."""
    dialect: Dialect
    """The wire format it speaks."""
    models: ModelNames = ()
    """Models it serves."""
    served_name: ModelName | None = None
    """The model name this server expects. Unset: the model's own name is sent."""
    slots: int = Field(ge=1, le=1024, default_factory=default_slots)
    """Requests it may work on at once; others wait in the gateway's queue."""
    weight: int = Field(default=1, ge=1, le=1000)
    """Its part of the requests of models with `balance = "weighted"`, as far as it is free."""
    abandon: Literal["close", "drain", "probe"] | None = None
    """When its slot is free again after a client left: at once, as the connection closes (`close`), when its
    answer has come (`drain`), or when a probe is answered (`probe`). Unset: what the dialect's servers do; an
    `openai` backend with one slot is taken to go on: whole answers are drained, streams probed;
    whole answers of llama.cpp's server, known by the `Server` header of its probes, are drained too."""
    receive_buffer: Buffer = 65_536
    """Bytes of its answer that the system may hold while a client reads slowly, for each connection (Linux
    takes twice that of memory for it). More is faster only for answers that come fast from far away."""
    api_key: Secret | None = None
    """Key sent to this backend as `Authorization: Bearer`."""
    api_key_file: FilePath | None = None
    """File that holds `api_key`, relative to the config file."""
    tls: TlsSettings = TlsSettings()
    """TLS settings of an `https` backend."""
    timeouts: TimeoutOverrides = TimeoutOverrides()
    """Time-outs of this backend; they win over the model's and over `[timeouts]`."""
    health: HealthOverrides = HealthOverrides()
    """Health checks of this backend; they win over `[health]`."""
    variant: Literal["auto", "2023-11", "2024-01", "2024-05", "2024-05-08"] = "auto"
    """Dialect chatglm3: which edition of `api_server.py` it runs. `auto` suits all but one: tools are sent
    in the forms of every edition, each of which ignores the others'. That of `2024-05-08` takes no tools."""
    v3_stream: Literal["native", "safe"] = "native"
    """Dialect chatglm3: `native` streams and repairs what the server breaks, `safe` asks for the whole."""
    v3_tools: Literal["flat", "nested"] = "flat"
    """Dialect chatglm3: tools as the model was trained on them (`flat`), or as OpenAI nests them."""
    v3_system: Literal["merge", "sacrificial"] = "merge"
    """Dialect chatglm3, with tools: system text before the first question (`merge`), or behind an empty
    system message that the server drops (`sacrificial`, editions from 2024-05 on)."""
    glm4_join: bool = False
    """Dialect glm4: make newlines in earlier answers blanks, as the server makes a message of every line."""
    glm4_stream: Literal["native", "safe"] = "native"
    """Dialect glm4: `native` streams, `safe` asks for whole answers: for servers from before July 2024."""
    family: Literal["chatglm", "chatglm2", "chatglm3", "glm4"] = "chatglm2"
    """Dialects chatglm-cpp and chatglm-cpp-native: which model it runs."""
    prompt_window: Tokens = 512
    """Dialects chatglm-cpp and chatglm-cpp-native: tokens of prompt the server keeps."""

    capabilities: Capabilities | None = None
    """Dialect openai: what this server can do by itself, of `tools`, `structured` (`response_format`) and
    `vision` (pictures). Unset: all of it. What is missing is emulated as the model's `emulate` says, or
    refused."""
    repair_tools: ToolTexts = ()
    """Dialect openai: formats of calls that this server leaves in the text and that are to be made proper
    calls: `glm-xml` (`<tool_call>name<arg_key>...`) and `glm4` (a name, a newline, JSON)."""

    reasoning: Literal["pass", "mirror", "think", "open-think"] = "pass"
    """The model's reasoning: `think` moves `<think>...</think>` at the beginning of an answer out of the
    text; `open-think` does so where the opening tag is part of the prompt; these and `mirror` give it as
    `reasoning_content` and `reasoning`; `pass` changes nothing."""

    @property
    def calls(self) -> CallUrls:
        """What is called there."""
        return calls_of(self)
