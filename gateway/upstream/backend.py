"""`Backend`: one model server with its dialect, settings, HTTP client, and what was learned about it."""

from __future__ import annotations

from collections.abc import Callable

from gateway import config
from gateway.dialects import DIALECTS
from gateway.dialects.base import Abandon, Profile
from gateway.scheduling.deadlines import DeadlineLimits
from gateway.upstream.client import Client
from gateway.upstream.transport import GatewayTransport, make_transport

_FROM_MODEL = (
    "context", "max_output", "default_output", "max_n", "strict", "trim", "system",
    "leading_assistant", "tools", "max_temperature", "emulate", "stream_unvalidated",
)  # fmt: skip
_FROM_BACKEND = (
    "variant",
    "v3_stream",
    "v3_tools",
    "v3_system",
    "glm4_join",
    "glm4_stream",
    "family",
    "prompt_window",
    "capabilities",
    "repair_tools",
    "reasoning",
)
_BESIDES = {"models", "weight", "timeouts", "health", "discover", "max_discovered"}
"""Settings whose change does not need a new `Backend` object."""


class Backend:
    """One model server. Lives as long as configurations name it with the same settings.

    Attributes:
        no_streams: True once the server has shown that its streams never work.
        abandon_whole, abandon_stream: when the slot is free after a client left; None: as the dialect says.
        probe: the path of the GET that the servers of its dialect answer.
        fault: what seems to be wrong with its configuration; "" for nothing.
        retired: True once no configuration names it; its results no longer count.
        noted: the notes that have been logged about it.
        answered: the doubts of requests that it has answered; "" stands for requests without a doubt.

    `deserted` is called when the server closes an idle connection, as servers do when they end.
    """

    def __init__(
        self,
        settings: config.BackendSettings,
        *,
        clock: Callable[[], float],
        transport: GatewayTransport | None,
        deserted: Callable[[], None] | None = None,
    ) -> None:
        self.name = settings.name
        self.dialect = DIALECTS[settings.dialect]
        self.probe = settings.calls.probe(self.dialect.probe)
        self.no_streams = False
        self.fault = ""
        self.retired = False
        self.noted: set[str] = set()
        self.answered: set[str] = set()
        self.abandon_whole, self.abandon_stream = _abandon(settings)
        self.settings = settings
        self.client = Client(
            settings.calls,
            transport or _transport(settings, deserted),
            api_key=settings.api_key.get_secret_value() if settings.api_key else None,
            clock=clock,
        )

    def learn_program(self, server: str) -> None:
        """Learn from the `Server` header of an answer which program the backend runs.

        llama.cpp's server may go on with a complete answer after its client has left.
        """
        if self.settings.abandon is None and server.lower().startswith("llama.cpp"):
            self.abandon_whole = "drain"

    def profile(self, model: config.ModelSettings) -> Profile:
        """Return the settings that the translation of a request for `model` on this backend depends on."""
        return profile(self.settings, model)

    def serves(self, settings: config.BackendSettings) -> bool:
        """Return True if these settings mean the same server, asked in the same way."""
        mine, theirs = (one.model_dump(exclude=_BESIDES) for one in (self.settings, settings))
        return mine == theirs

    async def retire(self) -> None:
        """Close idle connections now, and each other connection when its request ends."""
        self.retired = True
        await self.client.retire()

    async def aclose(self) -> None:
        """Close the client."""
        await self.client.aclose()

    def __repr__(self) -> str:
        return f"<Backend {self.name} {self.dialect.name}{' without streams' if self.no_streams else ''}>"


def profile(settings: config.BackendSettings, model: config.ModelSettings) -> Profile:
    """Return the settings that the translation of a request for `model` on a backend depends on."""
    return Profile(
        model=settings.served_name or model.name,
        name=model.name,
        **{name: getattr(model, name) for name in _FROM_MODEL},
        **{name: getattr(settings, name) for name in _FROM_BACKEND},
    )


def probe_path(settings: config.BackendSettings) -> str:
    """Return the path of the GET by which a backend is probed."""
    calls = settings.calls
    if settings.health.path is not None:
        return calls.root + settings.health.path
    return calls.probe(DIALECTS[settings.dialect].probe)


def _abandon(settings: config.BackendSettings) -> tuple[Abandon | None, Abandon | None]:
    """Return how complete answers and streams are abandoned, if it is not the dialect that decides.

    Most servers of dialect openai batch requests and stop when the client hangs up. Servers with a single
    slot mostly do neither.
    """
    if settings.abandon is not None:
        return settings.abandon, settings.abandon
    if settings.dialect == "openai" and settings.slots == 1:
        return "drain", "probe"
    return None, None


def limits(timeouts: config.TimeoutsSettings) -> DeadlineLimits:
    """Return the configured time-outs for the scheduling room."""
    return DeadlineLimits(timeouts.connect, timeouts.first_token, timeouts.between_tokens, timeouts.total)


def _transport(settings: config.BackendSettings, deserted: Callable[[], None] | None) -> GatewayTransport:
    tls = settings.tls
    return make_transport(
        slots=settings.slots,
        ca_file=tls.ca_file,
        cert_file=tls.cert_file,
        key_file=tls.key_file,
        deserted=deserted,
        addresses=settings.addresses,
        receive_buffer=settings.receive_buffer,
    )
