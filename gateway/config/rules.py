"""Rules that join several keys: names that must be unique or known, services, planes, keys, time-outs.

Each rule takes a `PartialConfig` and yields `ValueProblem`s. A rule that depends on a broken key stays
silent, so that one mistake gives one complaint.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from gateway.config.backend import DIALECT_KEYS, BackendSettings
from gateway.config.fault import KeyPath, ValueProblem, spelled
from gateway.config.key import KeySettings
from gateway.config.members import member_name, service_host
from gateway.config.messages import did_you_mean
from gateway.config.partial import PartialConfig
from gateway.config.paths import speakable
from gateway.config.section import TimeoutOverrides, TimeoutsSettings

Complaints = Iterator[ValueProblem]
_LONGEST_NAME = 64
FALLBACKS = ("fallbacks", "context_fallbacks")
SPLITS = ("canary", "shadow")


def complaints_about(draft: PartialConfig) -> Complaints:
    """Apply every rule."""
    for rule in RULES:
        yield from rule(draft)


def _some_backend(draft: PartialConfig) -> Complaints:
    if not draft.config.backends and not draft.is_broken("backends"):
        yield ValueProblem(
            (),
            'no backends; add a [[backends]] table, or try "gateway demo", which needs none',
        )


def _unique_names(draft: PartialConfig) -> Complaints:
    config = draft.config
    yield from _repeated(("backends", index, "name", item.name) for index, item in enumerate(config.backends))
    yield from _repeated(("keys", index, "name", item.name) for index, item in enumerate(config.keys))
    yield from _repeated(_model_names(draft))


def _model_names(draft: PartialConfig) -> Iterator[tuple[str | int, ...]]:
    """Yield all names clients may ask for, each behind its path: models first, so that aliases give way."""
    declared = {model.name for model in draft.config.models}
    for index, model in enumerate(draft.config.models):
        yield ("models", index, "name", model.name)
    seen: set[str] = set()
    for index, backend in enumerate(draft.config.backends):
        for position, name in enumerate(backend.models):
            if name not in declared | seen:
                yield ("backends", index, "models", position, name)
            seen.add(name)
    for index, model in enumerate(draft.config.models):
        for position, alias in enumerate(model.aliases):
            yield ("models", index, "aliases", position, alias)


def _repeated(named: Iterable[tuple[str | int, ...]]) -> Complaints:
    """Complain about each name that an earlier path has already; a name is the last part of its tuple."""
    first: dict[str | int, KeyPath] = {}
    for *path, name in named:
        earlier = first.setdefault(name, tuple(path))
        if earlier != tuple(path):
            yield ValueProblem(tuple(path), f'"{name}" is already at {spelled(earlier)}; choose another name')


def _repeated_models(draft: PartialConfig) -> Complaints:
    """Find a model twice in one backend's list, or a backend twice in one model's."""
    for index, backend in enumerate(draft.config.backends):
        yield from _repeated(
            ("backends", index, "models", at, name) for at, name in enumerate(backend.models)
        )
    for index, model in enumerate(draft.config.models):
        yield from _repeated(
            ("models", index, "backends", at, name) for at, name in enumerate(model.backends)
        )


def _known_backends(draft: PartialConfig) -> Complaints:
    known = {backend.name for backend in draft.config.backends}
    if draft.is_broken("name"):
        return
    for index, model in enumerate(draft.config.models):
        for position, name in enumerate(model.backends):
            if name not in known:
                near = did_you_mean(name, known) or f"; known: {', '.join(sorted(known)) or 'none'}"
                yield ValueProblem(
                    ("models", index, "backends", position), f'no backend is named "{name}"{near}'
                )


def _served_models(draft: PartialConfig) -> Complaints:
    if draft.is_broken("name", "models", "backends"):
        return
    listed = {name for backend in draft.config.backends for name in backend.models}
    for index, model in enumerate(draft.config.models):
        if not model.backends and model.name not in listed:
            near = did_you_mean(model.name, listed)
            remedy = near or f'; add "{model.name}" to the models of a backend, or list backends here'
            yield ValueProblem(("models", index, "name"), f'no backend serves "{model.name}"{remedy}')


def _useful_backends(draft: PartialConfig) -> Complaints:
    if draft.is_broken("name", "models", "backends"):
        return
    named = {name for model in draft.config.models for name in model.backends}
    for index, backend in enumerate(draft.config.backends):
        if not backend.models and backend.name not in named:
            yield ValueProblem(
                ("backends", index, "name"), f'"{backend.name}" serves no model; give it models = ["..."]'
            )


def _known_models(draft: PartialConfig) -> Complaints:
    if draft.is_broken("name", "models", "aliases", "backends"):
        return
    known = set(draft.config.names)
    for path, name in _mentioned_models(draft):
        if name not in known:
            near = did_you_mean(name, known) or f"; known: {', '.join(sorted(known)) or 'none'}"
            yield ValueProblem(path, f'no model is named "{name}"{near}')


def _mentioned_models(draft: PartialConfig) -> Iterator[tuple[KeyPath, str]]:
    if draft.config.server.default_model:
        yield ("server", "default_model"), draft.config.server.default_model
    for index, key in enumerate(draft.config.keys):
        for position, name in enumerate(key.models or ()):
            yield ("keys", index, "models", position), name
    for table in FALLBACKS:
        yield from _listed(draft, table)
    for table in SPLITS:
        yield from _split_to(draft, table)


def _listed(draft: PartialConfig, table: str) -> Iterator[tuple[KeyPath, str]]:
    for index, model in enumerate(draft.config.models):
        for position, name in enumerate(getattr(model, table)):
            yield ("models", index, table, position), name


def _split_to(draft: PartialConfig, table: str) -> Iterator[tuple[KeyPath, str]]:
    for index, model in enumerate(draft.config.models):
        split = getattr(model, table)
        if split is not None:
            yield ("models", index, table, "model"), split.model


def _fallbacks(draft: PartialConfig) -> Complaints:
    for table in FALLBACKS:
        yield from _circles(draft, _listed(draft, table))


def _canaries(draft: PartialConfig) -> Complaints:
    yield from _circles(draft, _split_to(draft, "canary"))


def _circles(draft: PartialConfig, steps: Iterable[tuple[KeyPath, str]]) -> Complaints:
    """Complain about each step that leads back to where a request came from."""
    if draft.is_broken("name", "models", "aliases", "backends"):
        return
    known = draft.config.names
    after: dict[str, list[str]] = {}
    for path, name in steps:
        model = draft.config.models[int(path[1])].name
        if name not in known:
            continue
        if model in _reached(known[name].name, after):
            yield ValueProblem(path, f'leads from "{model}" back to itself; remove it')
        else:
            after.setdefault(model, []).append(known[name].name)


def _shadows(draft: PartialConfig) -> Complaints:
    """Complain about a model that is its own shadow. Two may be each other's: a copy is never copied."""
    if draft.is_broken("name", "models", "aliases", "backends"):
        return
    known = draft.config.names
    for path, name in _split_to(draft, "shadow"):
        model = draft.config.models[int(path[1])].name
        if name in known and known[name].name == model:
            yield ValueProblem(path, f'"{model}" would be its own shadow; name another model')


def _reached(model: str, after: dict[str, list[str]]) -> set[str]:
    """A model and all that follow it."""
    reached: set[str] = set()
    following = [model]
    while following:
        name = following.pop()
        if name not in reached:
            reached.add(name)
            following += after.get(name, ())
    return reached


def _dialect_keys(draft: PartialConfig) -> Complaints:
    for index, backend in enumerate(draft.config.backends):
        if draft.is_broken_at("backends", index, "dialect"):
            continue
        for key in backend.model_fields_set & DIALECT_KEYS.keys():
            takers = DIALECT_KEYS[key]
            if backend.dialect not in takers:
                yield ValueProblem(
                    ("backends", index, key),
                    f"belongs to dialect {' or '.join(takers)}, here it is {backend.dialect}; remove it",
                )


def _tls(draft: PartialConfig) -> Complaints:
    for index, backend in enumerate(draft.config.backends):
        if draft.is_broken_at("backends", index, "url") or draft.is_broken_at("backends", index, "tls"):
            continue
        yield from _tls_of(backend, ("backends", index, "tls"))


def _tls_of(backend: BackendSettings, path: KeyPath) -> Complaints:
    if backend.tls.model_fields_set and not backend.url.lower().startswith("https:"):
        yield ValueProblem(path, 'the backend\'s url is "http"; make it "https", or remove tls')
    if backend.tls.key_file and not backend.tls.cert_file:
        yield ValueProblem((*path, "key_file"), "a private key needs its certificate; give cert_file too")


def _services(draft: PartialConfig) -> Complaints:
    for index, backend in enumerate(draft.config.backends):
        path: KeyPath = ("backends", index)
        if backend.discover is None:
            if "max_discovered" in backend.model_fields_set:
                yield ValueProblem((*path, "max_discovered"), "does nothing without discover; remove it")
        elif not draft.is_broken_at(*path, "url"):
            yield from _service(backend, path)


def _service(service: BackendSettings, path: KeyPath) -> Complaints:
    if importlib.util.find_spec("dns") is None:
        yield ValueProblem(
            (*path, "discover"),
            'needs dnspython, which the extra "dns" brings; in a checkout: '
            "pip install --require-hashes -r requirements/dns.txt",
        )
    host = service_host(service)
    if _is_address(host):
        yield ValueProblem((*path, "url"), f"{host} is an address; discover needs a name that DNS knows")
    if service.addresses:
        yield ValueProblem((*path, "addresses"), "discover finds the addresses; remove one of them")
    if service.discover == "srv" and urlsplit(service.url).port is not None:
        yield ValueProblem((*path, "url"), "has a port, which SRV records name themselves; leave it out")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _member_names(draft: PartialConfig) -> Complaints:
    """Complain where a member may get the name of another backend, or one that is too long."""
    named = {backend.name: index for index, backend in enumerate(draft.config.backends)}
    for at, service in enumerate(draft.config.backends):
        if service.discover is None:
            continue
        last = member_name(service.name, service.max_discovered - 1)
        if len(last) > _LONGEST_NAME:
            yield ValueProblem(
                ("backends", at, "name"),
                f'its servers are named up to "{last}", longer than {_LONGEST_NAME} characters; shorten it',
            )
        for name in (member_name(service.name, number) for number in range(service.max_discovered)):
            if name in named:
                yield ValueProblem(
                    ("backends", named[name], "name"),
                    f'"{name}" is a name that discover gives at {spelled(("backends", at))};'
                    " choose another name",
                )


def _discovery(draft: PartialConfig) -> Complaints:
    table = draft.config.discovery
    if table.min_ttl > table.max_ttl and not draft.is_broken_at("discovery"):
        yield ValueProblem(
            ("discovery", "max_ttl" if "max_ttl" in table.model_fields_set else "min_ttl"),
            f"min_ttl is {table.min_ttl:g} s and max_ttl {table.max_ttl:g} s; make max_ttl the larger one",
        )


def _planes(draft: PartialConfig) -> Complaints:
    data, admin = draft.config.server.address, draft.config.admin.address
    if data.collides_with(admin):
        path: KeyPath = ("admin", "listen") if draft.config.admin.model_fields_set else ("server", "listen")
        yield ValueProblem(
            path, f"server.listen ({data}) and admin.listen ({admin}) collide; give one another port"
        )


def _authentication(draft: PartialConfig) -> Complaints:
    server, has_keys = draft.config.server, bool(draft.config.keys)
    if draft.is_broken_at("keys") or draft.is_broken_at("server"):
        return
    if server.auth == "keys" and not has_keys:
        yield ValueProblem(
            ("server", "auth"), 'is "keys", but there are none; add a [[keys]] table, or set auth = "none"'
        )
    elif server.auth == "none" and has_keys:
        yield ValueProblem(("server", "auth"), 'is "none", but there are [[keys]]; remove one of them')
    elif server.auth is None and not has_keys and not server.address.is_local:
        yield ValueProblem(
            ("server", "listen"),
            f"{server.address} can be reached from outside and there are no keys; add a [[keys]] table,"
            ' or set auth = "none" in [server] to let everybody in',
        )


def _web_pages(draft: PartialConfig) -> Complaints:
    server = draft.config.server
    if draft.is_broken_at("keys") or draft.is_broken_at("server") or "*" not in server.cors_origins:
        return
    path = ("server", "cors_origins")
    if not draft.config.auth_required:
        yield ValueProblem(
            path, '"*" lets every web page in, and there are no keys; list origins, or add [[keys]]'
        )
    elif server.native_auth == "none":
        yield ValueProblem(
            path, '"*" lets every web page in, and native_auth is "none"; list origins instead'
        )


def _keepalive(draft: PartialConfig) -> Complaints:
    queue = draft.config.queue
    if queue.events and queue.keepalive_style not in (None, "events") and not draft.is_broken_at("queue"):
        yield ValueProblem(
            ("queue", "events"),
            f'is true, but keepalive_style is "{queue.keepalive_style}"; remove one of them',
        )


def _one_secret(draft: PartialConfig) -> Complaints:
    for index, key in enumerate(draft.config.keys):
        given = [name for name in ("key", "key_sha256", "key_file") if _is_given(key, name)]
        if draft.is_broken_at("keys", index):
            continue
        if not given:
            yield ValueProblem(("keys", index), "has no secret; give one of key, key_sha256, key_file")
        elif len(given) > 1:
            yield ValueProblem(("keys", index, given[1]), f"{given[0]} is given too; keep one of them")


def _is_given(key: KeySettings, name: str) -> bool:
    """Tell whether the file gives `name`; a key that came out of key_file does not count."""
    return getattr(key, name) is not None and not (name == "key" and key.key_file is not None)


def _tenants(draft: PartialConfig) -> Complaints:
    seen: dict[str, KeyPath] = {}
    for index, key in enumerate(draft.config.keys):
        path: KeyPath = ("keys", index)
        if key.name == "anonymous":
            yield ValueProblem(
                (*path, "name"), '"anonymous" means requests without a key; choose another name'
            )
        if key.key is None and key.key_sha256 is None:
            continue
        if seen.setdefault(key.digest, path) != path:
            yield ValueProblem(
                path, f"is the same key as {spelled(seen[key.digest])}; give each client its own"
            )


def _timeouts(draft: PartialConfig) -> Complaints:
    yield from _timeouts_in(draft.config.timeouts, ("timeouts",))
    for index, model in enumerate(draft.config.models):
        yield from _timeouts_in(model.timeouts, ("models", index, "timeouts"))
    for index, backend in enumerate(draft.config.backends):
        yield from _timeouts_in(backend.timeouts, ("backends", index, "timeouts"))


def _timeouts_in(table: TimeoutsSettings | TimeoutOverrides, path: KeyPath) -> Complaints:
    """Compare what is written side by side; a default above `total` is harmless, as `total` ends it."""
    given = {name: getattr(table, name) for name in table.model_fields_set}
    total = given.pop("total", None)
    for name, seconds in given.items():
        if total is not None and seconds > total:
            yield ValueProblem(
                (*path, name), f"{seconds:g} s can never pass, total is {total:g} s; lower it, or raise total"
            )


def _budgets(draft: PartialConfig) -> Complaints:
    """Compare a model's token limits, where the file gives them."""
    for index, model in enumerate(draft.config.models):
        given = {name: getattr(model, name) for name in model.model_fields_set}
        for low, high in (
            ("max_output", "context"),
            ("default_output", "max_output"),
            ("default_output", "context"),
        ):
            if given.get(low) and given.get(high) and given[low] > given[high]:
                yield ValueProblem(
                    ("models", index, low),
                    f"{given[low]} is above {high} ({given[high]}); lower it, or raise {high}",
                )


RULES: tuple[Callable[[PartialConfig], Complaints], ...] = (
    _some_backend,
    _unique_names,
    _repeated_models,
    _known_backends,
    _served_models,
    _useful_backends,
    _known_models,
    _fallbacks,
    _canaries,
    _shadows,
    _dialect_keys,
    _tls,
    _services,
    _member_names,
    _discovery,
    _planes,
    speakable,
    _authentication,
    _web_pages,
    _keepalive,
    _one_secret,
    _tenants,
    _timeouts,
    _budgets,
)
