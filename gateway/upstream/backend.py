"""One backend: a server with its dialect, its limits, its client and what was learned of it."""

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
"""Settings that a backend object does not depend on."""


class Backend:
    """A backend as the path of a request sees it. Lives while configurations name it with these settings.

    `deserted` is told when the server closes a connection that nobody uses, as it does when it ends.
    `no_streams` is set once a server has shown that its streams never work. `abandon_whole` and
    `abandon_stream` tell how the card becomes free after its client left, where the dialect has no say.
    `probe` is the path of the GET that its dialect's servers answer. `fault` says what seems to be wrong with
    its configuration, "" for nothing. `retired`: no configuration names it any more; what is in flight there
    may end, and says nothing of who has the name now. `answered` holds what was in doubt of the requests it
    has answered whole, "" for those without a doubt.
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
        """Take note of the `server` header of an answer: some programs are known for what they do.

        llama.cpp's server may go on with a whole answer whose client has left.
        """
        if self.settings.abandon is None and server.lower().startswith("llama.cpp"):
            self.abandon_whole = "drain"

    def profile(self, model: config.ModelSettings) -> Profile:
        """The settings that translating a request of `model` for this backend depends on."""
        return profile(self.settings, model)

    def serves(self, settings: config.BackendSettings) -> bool:
        """Whether these settings mean the same server, asked in the same way."""
        mine, theirs = (one.model_dump(exclude=_BESIDES) for one in (self.settings, settings))
        return mine == theirs

    async def retire(self) -> None:
        """Close idle connections now, each other one when its request ends."""
        self.retired = True
        await self.client.retire()

    async def aclose(self) -> None:
        """Close the client."""
        await self.client.aclose()

    def __repr__(self) -> str:
        return f"<Backend {self.name} {self.dialect.name}{' without streams' if self.no_streams else ''}>"


def profile(settings: config.BackendSettings, model: config.ModelSettings) -> Profile:
    """The settings that translating a request of `model` for a backend depends on."""
    return Profile(
        model=settings.served_name or model.name,
        name=model.name,
        **{name: getattr(model, name) for name in _FROM_MODEL},
        **{name: getattr(settings, name) for name in _FROM_BACKEND},
    )


def probe_path(settings: config.BackendSettings) -> str:
    """The path of the GET by which a backend is probed."""
    calls = settings.calls
    if settings.health.path is not None:
        return calls.root + settings.health.path
    return calls.probe(DIALECTS[settings.dialect].probe)


def _abandon(settings: config.BackendSettings) -> tuple[Abandon | None, Abandon | None]:
    """How whole answers and streams are abandoned, where that is not the dialect's to say.

    Most servers of dialect openai batch, and stop at a hang-up; one with a single slot mostly does neither.
    """
    if settings.abandon is not None:
        return settings.abandon, settings.abandon
    if settings.dialect == "openai" and settings.slots == 1:
        return "drain", "probe"
    return None, None


def limits(timeouts: config.TimeoutsSettings) -> DeadlineLimits:
    """The configured time-outs as the scheduling room knows them."""
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
