"""Decides where a call may go and translates it for every backend that can serve it.

Planning does no I/O and does not wait. Parameters that a backend cannot honour are reported or refused here,
before the request is queued.

    RoutingTable   models, backends, limits and fallbacks of one configuration; makes plans
    Plan           the backends that can take a call, and the bytes that each would be sent
    CanaryChoice   what was asked, where a call fell to the share of its model's canary
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from gateway import config
from gateway.abilities.registry import prepared
from gateway.dialects.base import Dialect, Outgoing, Profile
from gateway.errors import BadRequest, ContextExceeded, Draining, GatewayError, ModelNotFound, NoBackend
from gateway.formats.openai import ChatRequest
from gateway.formats.operation import OperationRequest
from gateway.path.call import Call
from gateway.scheduling import affinity, traffic_split
from gateway.scheduling.deadlines import DeadlineLimits
from gateway.scheduling.retry import cause
from gateway.scheduling.slot_request import SlotRequest
from gateway.telemetry.receipt import CanaryRecord
from gateway.upstream.backend import Backend, limits


@dataclass(frozen=True, slots=True)
class CanaryChoice:
    """A request for `model` was chosen for the model's canary.

    `call` is the request as the client sent it; `told` records what happened, for the receipt.
    """

    call: Call
    model: config.ModelSettings
    told: CanaryRecord


@dataclass(slots=True)
class Plan:
    """The backends that a request may go to, and its translation for each. A retry sends the same bytes.

    Attributes:
        routing: the routing table that the plan was made with.
        call: the request as the door parsed it.
        request: the request that is translated.
        model: the model that serves it.
        outgoing: the translation for each backend, by the backend's name.
        backends: the backends that can serve it, in the order of the configuration.
        ignored: the parameters that at least one of these backends cannot honour.
        alone: True if one generation makes all choices; False if each choice (`n`) needs its own.
        instead: True if `model` is not the model that the client asked for.
        canary: set if the request was chosen for a canary, even if the canary cannot serve it.
    """

    routing: RoutingTable
    call: Call
    request: OperationRequest
    model: config.ModelSettings
    outgoing: Mapping[str, Outgoing]
    backends: tuple[str, ...]
    ignored: tuple[str, ...]
    alone: bool
    instead: bool = False
    canary: CanaryChoice | None = None

    @property
    def name(self) -> str:
        """The model name in the request; the name of the model if the request has none."""
        if (before := self.canary) is not None:
            return before.call.request.model or before.model.name
        return self.request.model or self.model.name

    def slot_request(self, backends: tuple[str, ...], waited: float) -> SlotRequest:
        """Return the request for a slot on one of `backends`, after `waited` seconds in the queue."""
        tenant, model = self.call.tenant, self.model
        size = len(self.outgoing[backends[0]].body) if backends else 0
        slot_request = SlotRequest(model.name, backends, tenant.name, tenant.weight, tenant.priority, size)
        slot_request.waited = waited
        if model.balance == "session":
            named = self.call.session or self.request.user
            slot_request.affinity = affinity.session(named, self.request.turns(opening=True))
        elif model.balance == "prefix":
            slot_request.prefix = affinity.chain(self.request.turns(opening=False))
        return slot_request

    def asked_whole(self, backend: str) -> Outgoing:
        """Return the translation without streaming, for a backend whose streams do not work."""
        call = self.call if self.alone else self.call.single()
        group = next(one for one in self.routing.groups[self.model.name] if backend in one.backends)
        return group.ask(call, stream=False)


@dataclass(frozen=True, slots=True)
class TranslationGroup:
    """Backends of one model that receive identical bytes: they have the same dialect and profile."""

    dialect: Dialect
    profile: Profile
    backends: tuple[str, ...]

    def ask(self, call: Call, *, stream: bool) -> Outgoing:
        """Return the translation of a call for these backends. Raises what `Translator.ask` raises."""
        request, dialect = call.for_dialect(self.dialect), self.dialect
        if isinstance(request, ChatRequest):
            request, abilities = prepared(request, dialect, self.profile)
            outgoing = dialect.ask(request, self.profile, stream=stream)
            if abilities:
                outgoing.abilities, outgoing.profile = abilities, self.profile
            return outgoing
        return dialect.translator(call.operation).ask(request, self.profile, stream=stream)


class RoutingTable:
    """Models, backends, limits and fallbacks of one configuration. Immutable; it makes the plans.

    A reload replaces it as a whole. A plan keeps the table that it was made with, so that a request in flight
    keeps its backend. `chance` returns a random number from 0 to 1.
    """

    def __init__(
        self, settings: config.Config, fleet: Mapping[str, Backend], chance: Callable[[], float]
    ) -> None:
        self.fleet = fleet
        self.attempts = settings.retries.attempts
        self.models = {model.name: model for model in settings.resolved_models}
        self.limits: Mapping[tuple[str, str], DeadlineLimits] = {
            (model.name, backend.name): limits(settings.timeouts_for(model, backend))
            for model in settings.resolved_models
            for backend in settings.backends_of(model)
        }
        self.fallbacks = {
            (model.name, why): settings.fallbacks_of(model, why)
            for model in settings.resolved_models
            for why in ("outage", "context")
        }
        self.groups = {model.name: self._group(model) for model in settings.resolved_models}
        self._chance = chance
        self.canaries = {
            model.name: (settings.names[model.canary.model], model.canary.share)
            for model in settings.resolved_models
            if model.canary is not None
        }

    def for_copies(self) -> RoutingTable:
        """Return a table for shadow copies: one attempt, no fallback models, no canaries."""
        routing = copy.copy(self)
        routing.attempts, routing.fallbacks, routing.canaries = 1, {}, {}
        return routing

    def _group(self, model: config.ModelSettings) -> tuple[TranslationGroup, ...]:
        names: dict[tuple[Dialect, Profile], list[str]] = {}
        for name in model.backends:
            backend = self.fleet[name]
            names.setdefault((backend.dialect, backend.profile(model)), []).append(name)
        return tuple(
            TranslationGroup(dialect, profile, tuple(same)) for (dialect, profile), same in names.items()
        )

    def plan(self, call: Call, model: config.ModelSettings, *, split: bool = True) -> Plan:
        """Plan a call for `model`: translate it for every backend that can serve it.

        If the prompt is too long for all of them, the plan is for a fallback model. With `split`, a share
        of the requests is planned for the model's canary. Raises the `BadRequest` of the first backend if
        no backend can serve the request.
        """
        if split and self.canaries and (canary := self.canaries.get(model.name)) is not None:
            return self._split(call, model, *canary)
        groups = self.groups.get(model.name)
        if groups is None:  # a reload has removed the model since the request was parsed
            raise ModelNotFound("There is no model of that name any more.", param="model")
        request = call.request
        alone = request.n == 1 or _makes_many(groups)
        if not alone and request.n > model.max_n:
            raise BadRequest(f"n: this model gives at most {model.max_n} choices.", param="n")
        try:
            one = call if alone else call.single()
            if len(groups) == 1:
                group = groups[0]
                only = group.ask(one, stream=request.stream)
                outgoing = dict.fromkeys(group.backends, only)
                return Plan(self, call, request, model, outgoing, group.backends, only.ignored, alone)
            outgoing = self._translated(groups, one)
            ignored = dict.fromkeys(name for one in outgoing.values() for name in one.ignored)
            return Plan(self, call, request, model, outgoing, tuple(outgoing), tuple(ignored), alone)
        except ContextExceeded as error:
            plans = self.elsewhere(call, model, error)
            if not plans:
                raise
            return plans[0]

    def _translated(self, groups: tuple[TranslationGroup, ...], call: Call) -> dict[str, Outgoing]:
        outgoing: dict[str, Outgoing] = {}
        refusal: BadRequest | None = None
        for group in groups:
            try:
                outgoing |= dict.fromkeys(group.backends, group.ask(call, stream=call.request.stream))
            except BadRequest as error:
                refusal = refusal or error
        if refusal is not None and not outgoing:
            try:
                raise refusal
            finally:
                del refusal  # its traceback refers to this frame
        return outgoing

    def elsewhere(self, call: Call, model: config.ModelSettings, error: GatewayError) -> list[Plan]:
        """Return plans for the fallback models that `error` allows, in the order of the configuration.

        Models that the tenant may not use, and models that cannot serve the request, are left out.
        """
        plans: dict[str, Plan] = {}
        why = cause(error)
        for other in self.fallbacks.get((model.name, why), ()) if why else ():
            if call.tenant.sees(other.name):
                with suppress(BadRequest):
                    plan = self.plan(call.of(other.name), other, split=False)
                    plan.instead = True
                    if plan.backends:  # none if the servers of the model have not been discovered yet
                        plans.setdefault(plan.model.name, plan)
        plans.pop(model.name, None)
        return list(plans.values())

    def corrected(self, plan: Plan, request: ChatRequest) -> Plan:
        """Plan `request` in place of the request of `plan`, for the same model. Raises what `plan` raises."""
        model = self.models.get(plan.model.name, plan.model)
        corrected = self.plan(plan.call.asking(request), model, split=False)
        corrected.instead = corrected.instead or plan.instead
        corrected.canary = plan.canary
        return corrected

    def renewed(self, plan: Plan) -> Plan:
        """Plan the request of `plan` again with this table. Raises `NoBackend` if its model was removed."""
        model = self.models.get(plan.model.name)
        if model is None:
            raise NoBackend("No backend of this model can be reached.", retry_after=1.0)
        renewed = self.plan(plan.call if plan.alone else plan.call.single(), model, split=False)
        renewed.instead = renewed.instead or plan.instead
        renewed.canary = plan.canary
        return renewed

    # --- canaries ----------------------------------------------------------------------------------

    def _split(
        self, call: Call, model: config.ModelSettings, canary: config.ModelSettings, share: float
    ) -> Plan:
        """Plan a request for a model with a canary: for the canary if it is chosen, allowed and possible."""
        point = point_of(call, canary.name)
        if not traffic_split.chosen(share, self._chance() if point is None else point):
            return self.plan(call, model, split=False)
        told, plan = CanaryRecord(canary.name, "forbidden"), None
        if call.tenant.sees(canary.name):
            plan = self._for_canary(call, model, canary)
            told = CanaryRecord(canary.name, "taken" if plan else "unfit")
        if plan is None:
            plan = self.plan(call, model, split=False)
        plan.canary = CanaryChoice(call, model, told)
        return plan

    def _for_canary(
        self, call: Call, model: config.ModelSettings, canary: config.ModelSettings
    ) -> Plan | None:
        """Return the plan for the canary; None if it cannot serve it, or if `model` could not take over.

        The model cannot take over from its canary where each choice is a generation of its own, because all
        choices of an answer must come from one model.
        """
        if call.request.n > 1 and not _makes_many(self.groups.get(model.name, ())):
            return None
        with suppress(BadRequest):
            plan = self.plan(call.of(canary.name), canary, split=False)
            if plan.alone and not plan.instead:
                plan.instead = True
                return plan
        return None

    def returned(self, plan: Plan, error: GatewayError) -> Plan | None:
        """Plan the request of a failed canary for the model that the client asked for.

        Return None if the plan is not for a canary, if the model cannot serve the request, if the canary's
        content filter refused the request, or if the gateway is shutting down.
        """
        before = plan.canary
        if before is None or before.told.result != "taken" or before.model.name not in self.models:
            return None
        if error.code == "content_filter" or isinstance(error, Draining):
            return None
        with suppress(BadRequest):
            asked = self.plan(before.call, self.models[before.model.name], split=False)
            if asked.alone:
                asked.canary = replace(before, told=CanaryRecord(before.told.model, "returned"))
                return asked
        return None


def point_of(call: Call, canary: str) -> float | None:
    """Return a number from 0 to 1 that is the same for all requests of one conversation; else None.

    A canary answers the conversations whose number is below its share. The number depends on the canary's
    name, so that different canaries get different conversations. None: the request belongs to no
    conversation.
    """
    request = call.request
    named = call.session or request.user
    if not named and not request.has_opening:
        return None
    return traffic_split.point(canary, affinity.session(named, request.turns(opening=True)))


def _makes_many(groups: tuple[TranslationGroup, ...]) -> bool:
    """Return True if one generation on these backends can make several choices (`n`)."""
    return all("n" in group.dialect.honours for group in groups)
