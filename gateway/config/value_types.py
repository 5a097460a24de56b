"""The kinds of value a config key may hold: types with a range and a name for messages and docs.

A `Kind` says in words what is wanted ("a number of seconds"); the same words stand in error
messages and in the reference table of docs/configuration.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from hashlib import sha256
from ipaddress import ip_address
from typing import Annotated, Any, get_args
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, WithJsonSchema
from pydantic.fields import FieldInfo

from gateway.config.address import Address


@dataclass(frozen=True)
class ValueType:
    """What a key holds, in words that follow "wanted:" ("a number of seconds")."""

    wanted: str


def kinds_of(field: FieldInfo) -> list[ValueType]:
    """List the Kinds of a field, its own before its items'; empty for fields that speak for themselves."""
    return [item for item in (*field.metadata, *_metadata(field.annotation)) if isinstance(item, ValueType)]


def _metadata(annotation: Any) -> Iterator[Any]:
    """All metadata inside an annotation such as `Annotated[float, Kind(...)] | None`."""
    yield from getattr(annotation, "__metadata__", ())
    for part in get_args(annotation):
        yield from _metadata(part)


def tuple_of(value: object) -> object:
    """TOML arrays arrive as lists; strict validation of a tuple wants a tuple."""
    return tuple(value) if isinstance(value, list) else value


def _checked_address(value: str) -> str:
    Address.parse(value)
    return value


def _checked_url(value: str) -> str:
    """Give the URL, without a path that is nothing but slashes.

    ValueErrors never repeat the URL, it may hold a password.
    """
    parts = _split(value)
    if parts.scheme not in {"http", "https"}:
        wide = "; it holds full-width punctuation" if _FULL_WIDTH.search(value) else ""
        raise ValueError(f'the URL must begin with "http://" or "https://"{wide}')
    if "@" in parts.netloc:
        raise ValueError("the URL holds a name or password; put the key into api_key or api_key_file")
    if not parts.hostname:
        raise ValueError("the URL names no host")
    if "?" in value or "#" in value:
        raise ValueError(
            "the URL has a query or a fragment; write scheme, host and port here, and the rest into path"
        )
    return value if parts.path.strip("/") else value.rstrip("/")


def _checked_ip(value: str) -> str:
    """Give an IP address in its shortest spelling."""
    try:
        address = ip_address(value)
    except ValueError as error:
        raise ValueError(f'"{value}" is no IP address; names are not looked up here') from error
    if getattr(address, "scope_id", None):
        raise ValueError(f'"{value}" names an interface; give an address without "%"')
    return str(address)


def _checked_nameserver(value: str) -> str:
    """Give the address of a name server with its port, 53 unless there is one."""
    host, port = value.removeprefix("[").removesuffix("]"), 53
    if "]:" in value or value.count(":") == 1:
        host, _, digits = value.rpartition(":")
        host, port = host.strip("[]"), int(digits) if digits.isascii() and digits.isdecimal() else 0
    try:
        address = Address(str(ip_address(host)), port)
    except ValueError as error:
        raise ValueError(f'"{value}" is no IP address, with or without a port') from error
    if not 0 < port < 65_536:
        raise ValueError(f'"{value}" has no port between 1 and 65535; leave it out for 53')
    return str(address)


def _checked_host(value: str) -> str:
    """Give the name of a host as it is compared: lower case, no dot at its end, no brackets."""
    name = value.lower().removesuffix(".").removeprefix("[").removesuffix("]")
    if value != "*" and not re.fullmatch(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}", name):
        raise ValueError(f'"{value}" is no name or address of a host; leave scheme, port and path out')
    if ":" in name:
        name = _checked_ip(name)
    return name


def _checked_origin(value: str) -> str:
    """Give an origin as browsers write it: lower case, no usual port, no slash at its end."""
    if value == "*":
        return value
    origin = value.lower().rstrip("/")
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s?#@,*]+", origin):
        raise ValueError(
            f'"{value}" is no origin; write scheme, host and port, such as "https://chat.example.org"'
        )
    scheme, _, place = origin.partition("://")
    return f"{scheme}://{place.removesuffix(_USUAL_PORTS.get(scheme, ' '))}"


_USUAL_PORTS = {"http": ":80", "https": ":443"}


_FULL_WIDTH = re.compile("[：／．。，]")


def _split(value: str) -> SplitResult:
    if any(char.isspace() or not char.isprintable() for char in value):
        raise ValueError("the URL holds a blank or a control character")
    try:
        parts = urlsplit(value)
        _ = parts.port  # raises where the port is no number or out of range
    except ValueError as error:
        raise ValueError("the URL cannot be read; its host or port is malformed") from error
    return parts


def _checked_moment(value: object) -> object:
    if isinstance(value, date):  # a datetime is a date too
        return value
    raise ValueError("a date such as 2027-01-31 or 2027-01-31T12:00:00Z is wanted, without quotes")


def _checked_secret(value: object) -> object:
    """Check a secret; ValueErrors never repeat it."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if not isinstance(value, str):
        raise ValueError("a text is wanted")  # noqa: TRY004 - pydantic collects ValueErrors, not TypeErrors
    if not value:
        raise ValueError("is empty; give the secret itself, or leave the key out")
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise ValueError(
            "holds a blank, a control character or one outside ASCII; HTTP headers cannot carry it"
        )
    return SecretStr(value)


def _checked_client_key(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if len(text) < 8:
        raise ValueError("is shorter than 8 characters, too easy to guess; use a long random text")
    if "." in text:
        raise ValueError(
            "holds a dot; the zhipuai library would send a token made from it, not the key itself"
        )
    return value


def _checked_digest(value: SecretStr) -> SecretStr:
    text = value.get_secret_value().lower()
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError("is no SHA-256; 64 hexadecimal digits are wanted (printf %s KEY | sha256sum)")
    if text == sha256(b"").hexdigest():
        raise ValueError("is the SHA-256 of an empty text; hash the key itself")
    return SecretStr(text)


Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False), ValueType("a number of seconds")]
"""A duration above 0, at most one day."""

Wait = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False), ValueType("a number of seconds")]
"""A duration that may be 0."""

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), ValueType("a share")]

Temperature = Annotated[float, Field(gt=0, le=2, allow_inf_nan=False), ValueType("a temperature")]

Buffer = Annotated[int, Field(ge=4096, le=2**26), ValueType("a whole number of bytes")]
Bytes = Annotated[int, Field(ge=1024, le=2**31), ValueType("a whole number of bytes")]

Memory = Annotated[int, Field(ge=4_194_304, le=2**40), ValueType("a whole number of bytes")]

Tokens = Annotated[int, Field(ge=1, le=100_000_000), ValueType("a whole number of tokens")]

Listen = Annotated[
    str,
    AfterValidator(_checked_address),
    ValueType('an address such as "127.0.0.1:8000", "[::1]:8000" or "unix:/run/gateway.sock"'),
]

Url = Annotated[str, AfterValidator(_checked_url), ValueType('a URL such as "http://127.0.0.1:8001"')]

IpAddresses = Annotated[
    tuple[Annotated[str, AfterValidator(_checked_ip)], ...],
    BeforeValidator(tuple_of),
    ValueType("a list of IP addresses"),
]

NameServers = Annotated[
    tuple[Annotated[str, AfterValidator(_checked_nameserver)], ...],
    BeforeValidator(tuple_of),
    ValueType('a list of addresses such as "10.96.0.10" or "127.0.0.1:5353"'),
]

HostNames = Annotated[
    tuple[Annotated[str, AfterValidator(_checked_host)], ...],
    BeforeValidator(tuple_of),
    ValueType('a list of names such as "gateway.example.org"'),
]

Origins = Annotated[
    tuple[Annotated[str, AfterValidator(_checked_origin)], ...],
    BeforeValidator(tuple_of),
    ValueType('a list of origins such as "https://chat.example.org"'),
]

ProbePath = Annotated[
    str,
    Field(pattern=r"^/[!-~]{0,1023}$"),
    ValueType('a path such as "/health"'),
]
"""The target of a probe, with a query if it needs one."""

CallPath = Annotated[
    str,
    Field(pattern=r'^/[^\s#"\x00-\x20\x7f-\U0010ffff]{0,1023}$'),
    ValueType('a path such as "/v1/chat/completions"'),
]
"""The target of a POST, with a query if it needs one."""

ModelName = Annotated[str, Field(pattern=r"^[^\s\x00-\x1f\x7f]{1,256}$"), ValueType("a name without blanks")]
"""What clients send as `model`; slashes and Chinese are fine."""

Label = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"),
    ValueType("a name of up to 64 letters, digits, dots, dashes, underscores"),
]
"""A name that goes into headers, logs and metrics."""

ModelNames = Annotated[tuple[ModelName, ...], BeforeValidator(tuple_of), ValueType("a list of model names")]

Labels = Annotated[tuple[Label, ...], BeforeValidator(tuple_of), ValueType("a list of backend names")]

Secret = Annotated[
    SecretStr,
    BeforeValidator(_checked_secret),
    WithJsonSchema({"type": "string", "minLength": 1, "writeOnly": True}),
    ValueType("a secret text"),
]

ClientKey = Annotated[Secret, AfterValidator(_checked_client_key)]

Digest = Annotated[Secret, AfterValidator(_checked_digest)]
"""SHA-256 in lower-case hexadecimal."""

FilePath = Annotated[str, Field(min_length=1), ValueType("the path of a file")]

Moment = Annotated[
    date | datetime,
    BeforeValidator(_checked_moment),
    WithJsonSchema({"type": "string", "format": "date-time"}),
    ValueType("a date, or a date with time"),
]
