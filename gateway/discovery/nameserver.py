"""Sends queries to name servers; the only file that imports dnspython, which the extra `dns` installs."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import cast

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from dns.rdtypes.IN.SRV import SRV

from gateway import config
from gateway.config import Address
from gateway.scheduling.endpoints import DnsAnswer, DnsQuestion, DnsTarget, Result

MOST_AT_ONCE = 16
"""Maximum number of concurrent queries."""
ONE_TRY = 2.0
"""Seconds after which a query is sent again, or to the next server."""

_FAULTS: tuple[tuple[type[Exception], Result], ...] = (
    (dns.resolver.NXDOMAIN, "nxdomain"),
    (dns.resolver.NoAnswer, "empty"),
    (dns.exception.Timeout, "timeout"),
    (dns.resolver.NoNameservers, "servfail"),
    (dns.exception.DNSException, "failed"),
    (OSError, "failed"),
)


class Nameservers:
    """The configured name servers, or those of the system. Bound to one event loop.

    An answer that is too long for UDP is requested again over TCP. A server that does not answer or reports
    a failure is skipped.
    """

    def __init__(self, settings: config.DiscoverySettings) -> None:
        self._settings = settings
        self._turn = asyncio.Semaphore(MOST_AT_ONCE)
        self._backend = dns.asyncbackend.get_backend("asyncio")
        self._fixed = _of(settings) if settings.nameservers else None

    async def wait_answer(self, question: DnsQuestion) -> DnsAnswer:
        """Return the answer to a question. A failure is returned as an answer and never raised.

        The query takes at most `discovery.timeout` seconds once fewer than `MOST_AT_ONCE` others are
        running.
        """
        async with self._turn:
            answer = await self._wait_answer(question)
        # `asyncio.wait_for` of Python 3.11, which dnspython uses, loses a cancellation that arrives
        # together with the answer.
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise asyncio.CancelledError
        return answer

    async def _wait_answer(self, question: DnsQuestion) -> DnsAnswer:
        try:
            # The system's settings are read for each query because the machine may move to another network.
            resolver = self._fixed
            if resolver is None:
                resolver = await asyncio.to_thread(_of_system, self._settings)
            found = await resolver.resolve(question.name, question.kind, backend=self._backend, search=True)
        except (dns.exception.DNSException, OSError) as error:
            return DnsAnswer(next(result for kind, result in _FAULTS if isinstance(error, kind)))
        return _read(question, found)

    def __repr__(self) -> str:
        return f"<Nameservers {', '.join(self._settings.nameservers) or 'of the system'}>"


def _of(settings: config.DiscoverySettings) -> dns.asyncresolver.Resolver:
    """Return a resolver for the configured name servers, without a search list."""
    resolver = dns.asyncresolver.Resolver(configure=False)
    places = map(Address.parse, settings.nameservers)
    resolver.nameservers = [dns.nameserver.Do53Nameserver(one.host, one.port) for one in places]
    return _limited(resolver, settings)


def _of_system(settings: config.DiscoverySettings) -> dns.asyncresolver.Resolver:
    """Return a resolver with the system's settings. Raises `dns.resolver.NoResolverConfiguration`."""
    return _limited(dns.asyncresolver.Resolver(), settings)


def _limited(
    resolver: dns.asyncresolver.Resolver, settings: config.DiscoverySettings
) -> dns.asyncresolver.Resolver:
    resolver.lifetime = settings.timeout
    resolver.timeout = min(ONE_TRY, settings.timeout)
    return resolver


def _read(question: DnsQuestion, found: dns.resolver.Answer) -> DnsAnswer:
    ttl = float(found.chaining_result.minimum_ttl)
    if question.kind != "SRV":
        return DnsAnswer("ok", ttl, addresses=tuple(cast("A | AAAA", record).address for record in found))
    records = [cast("SRV", record) for record in found]
    targets = tuple(DnsTarget(one.priority, _host(one.target), one.port, one.weight) for one in records)
    return DnsAnswer("ok", ttl, targets=targets, beside=_beside(found))


def _beside(found: dns.resolver.Answer) -> dict[str, tuple[str, ...]]:
    """Return the addresses of targets that the server sent in the additional section.

    They save a query for each target.
    """
    addresses: dict[str, list[str]] = defaultdict(list)
    for records in found.response.additional:
        if records.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            addresses[_host(records.name)] += [cast("A | AAAA", record).address for record in records]
    return {host: tuple(sorted(its, key=lambda one: (":" in one, one))) for host, its in addresses.items()}


def _host(name: dns.name.Name) -> str:
    """Return a name as text. The root is "": as an SRV target it means that the service does not exist."""
    return "" if name == dns.name.root else name.to_text(omit_final_dot=True).lower()
