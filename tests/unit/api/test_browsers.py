"""Which names and origins are served without keys, and what browsers are told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gateway.api.browsers import EXPOSED, MOST_HOSTS, BrowserRules, require_json_of_browsers
from gateway.config import Address, ServerSettings
from gateway.errors import HostNotAllowed, OriginNotAllowed, UnsupportedMediaType
from tests.support.asgi import Call, fetch, rig
from tests.support.servers import Servers, native, streaming, talk, whole

KEYS = '[[keys]]\nname = "team"\nkey = "sk-12345678"\n'
PAGE = "https://chat.example.org"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def rules(listen: str = "127.0.0.1:8000", **settings: Any) -> BrowserRules:
    return BrowserRules(ServerSettings(**settings), Address.parse(listen))


def served(host: str, listen: str = "127.0.0.1:8000", **settings: Any) -> bool:
    try:
        rules(listen, **settings).require_ours("POST", {b"host": host.encode()})
    except HostNotAllowed:
        return False
    return True


def test_who_is_refused_is_told_which_setting_helps() -> None:
    with pytest.raises(HostNotAllowed, match=r"evil\.example.*server\.hosts"):
        rules().require_host({b"host": b"evil.example:8000"})
    with pytest.raises(OriginNotAllowed, match=r"https://evil\.example.*server\.cors_origins"):
        rules().require_ours("POST", {b"host": b"localhost", b"origin": b"https://evil.example"})


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.0.0.1:8000", "127.9.9.9:1", "[::1]", "[::1]:8000", "[0:0:0:0:0:0:0:1]:80",
        "[::ffff:127.0.0.1]:8000", "localhost", "LOCALHOST:8000", "localhost.", "LocalHost.:8000",
        "app.localhost:8000", "host.docker.internal:8000", "0.0.0.0:8000",
    ],
)  # fmt: skip
@pytest.mark.parametrize("listen", ["127.0.0.1:8000", "[::1]:8000", "localhost:8000", "0.0.0.0:8000"])
def test_names_of_this_machine_are_served_everywhere(host: str, listen: str) -> None:
    assert served(host, listen)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "evil",
        "127.0.0.1.", "notlocalhost", "10.0.0.5:8000", "192.168.1.2", "[fe80::1]", "[2001:db8::1]:80",
        "127.1", "2130706433", "localhost:8000:1", "docker.internal", ".localhost.evil", "",
    ],
)  # fmt: skip
def test_other_names_are_refused_on_loopback(host: str) -> None:
    assert served(host) is (host == "127.0.0.1.")  # a dot behind an address is the same address


@pytest.mark.parametrize(
    ("listen", "host", "well"),
    [
        pytest.param("0.0.0.0:8000", "10.0.0.5:8000", True, id="any-address-of-a-wildcard"),
        pytest.param("[::]:8000", "[fe80::1]:8000", True, id="any-ipv6-address-of-a-wildcard"),
        pytest.param("10.0.0.5:8000", "10.0.0.5:8000", True, id="its-own-address"),
        pytest.param("10.0.0.5:8000", "10.0.0.6:8000", False, id="another-address"),
        pytest.param("0.0.0.0:8000", "gateway:8000", True, id="a-service-of-compose"),
        pytest.param("0.0.0.0:8000", "gateway.example.org", False, id="a-public-name"),
        pytest.param("gpu.lan:8000", "gpu.lan:8000", True, id="the-name-it-listens-at"),
        pytest.param("unix:/run/gateway.sock", "whatever.example", True, id="unix-socket"),
    ],
)
def test_a_listener_answers_to_its_own_addresses(listen: str, host: str, well: bool) -> None:
    assert served(host, listen) is well


@pytest.mark.parametrize("host", ["gateway.example.org", "Gateway.Example.org.:443", "[2001:db8::7]:8000"])
def test_configured_hosts_are_served(host: str) -> None:
    assert served(host, hosts=("gateway.example.org", "2001:db8::7"))
    assert served("anything.example", hosts=("*",))


def test_a_request_without_host_is_served() -> None:
    rules().require_ours("GET", {})


def test_names_that_are_known_again_are_bounded() -> None:
    one = rules(hosts=("*",))
    for number in range(3 * MOST_HOSTS):
        one.require_host({b"host": b"h%d" % number})
    assert len(one._known) <= MOST_HOSTS


@pytest.mark.parametrize(
    ("headers", "well"),
    [
        pytest.param({b"origin": b"https://evil.example"}, False, id="foreign"),
        pytest.param({b"origin": b"null"}, False, id="null"),
        pytest.param({b"origin": b""}, False, id="empty"),
        pytest.param({b"origin": b"http://localhost:3000"}, False, id="another-port"),
        pytest.param({b"origin": b"http://localhost:8000"}, True, id="the-same"),
        pytest.param({b"origin": b"https://chat.example.org"}, True, id="configured"),
        pytest.param({b"origin": b"HTTPS://CHAT.example.org"}, True, id="configured-upper-case"),
        pytest.param({b"origin": b"https://chat.example.org.evil.example"}, False, id="longer"),
        pytest.param({b"origin": b"https://chat.example.org:8443"}, False, id="configured-name-another-port"),
        pytest.param({b"origin": b"file://"}, False, id="file"),
        pytest.param({b"sec-fetch-site": b"cross-site"}, False, id="cross-site-without-origin"),
        pytest.param({b"sec-fetch-mode": b"cors"}, True, id="a-program-that-says-how-it-fetches"),
        pytest.param({}, True, id="a-program"),
    ],
)
def test_without_keys_only_pages_that_are_allowed_are_served(headers: dict[bytes, bytes], well: bool) -> None:
    one = rules(cors_origins=(PAGE,))
    try:
        one.require_ours("POST", {b"host": b"localhost:8000", **headers})
        served_here = True
    except OriginNotAllowed:
        served_here = False
    assert served_here is well


BROWSER = [{b"origin": b"http://a"}, {b"sec-fetch-site": b"none"}, {b"sec-fetch-mode": b"no-cors"}]


@pytest.mark.parametrize("browser", BROWSER)
@pytest.mark.parametrize("kind", [None, b"", b"text/plain", b"application/x-www-form-urlencoded"])
def test_a_browsers_body_must_say_that_it_is_json(browser: dict[bytes, bytes], kind: bytes | None) -> None:
    headers = browser if kind is None else {**browser, b"content-type": kind}
    with pytest.raises(UnsupportedMediaType, match="application/json"):
        require_json_of_browsers(headers)
    require_json_of_browsers({**browser, b"content-type": b"application/json"})


async def test_a_program_need_not_say_what_it_sends_and_the_native_door_takes_anything() -> None:
    async with rig(Servers(a=native()), "chatglm2") as house:
        assert (await house.chat()).status == 200
        assert (await house.post("/", {"prompt": "hi"}, headers={"content-type": "text/plain"})).status == 200


@pytest.mark.parametrize(("path", "body"), [("/", {"prompt": "hi"}), ("/v1/chat/completions", CHAT)])
@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        pytest.param({"origin": "https://evil.example"}, 403, "origin_not_allowed", id="cross-site"),
        pytest.param({"origin": "null"}, 403, "origin_not_allowed", id="null"),
        pytest.param({"host": "evil.example"}, 403, "host_not_allowed", id="rebinding"),
        pytest.param({"origin": "http://localhost", "content-type": "text/plain"}, 415, None, id="no-json"),
    ],
)
async def test_a_web_page_cannot_use_a_keyless_gateway(
    path: str, body: Any, headers: dict[str, str], status: int, code: str | None
) -> None:
    async with rig(Servers(a=native()), "chatglm2") as house:
        call = await house.post(path, body, headers=headers)
        assert call.status == status
        if code and path != "/":
            assert call.error["code"] == code
        assert house.servers.order == []


async def test_the_list_of_models_is_not_read_under_a_foreign_name() -> None:
    async with rig(Servers(a=native()), "chatglm2") as house:
        assert (await house.get("/v1/models", headers={"host": "evil.example"})).status == 403
        for app in (house.gateway.data, house.gateway.admin):
            assert (await fetch(app, "GET", "/livez", headers={"host": "evil.example"})).status == 200
            ready = await fetch(app, "GET", "/readyz", headers={"host": "10.0.0.5:8000"}, query=b"verbose")
            assert (ready.status, ready.json) == (200, {"status": "ready", "draining": False})
        for page in ("/metrics", "/version"):
            assert (await fetch(house.gateway.admin, "GET", page)).status == 200
            foreign = await fetch(house.gateway.admin, "GET", page, headers={"host": "evil.example"})
            assert foreign.status == 403


async def test_with_keys_every_name_and_origin_is_served() -> None:
    key = {
        "authorization": "Bearer sk-12345678",
        "host": "gateway.example.org",
        "origin": "https://a.example",
    }
    async with rig(Servers(a=native()), "chatglm2", KEYS) as house:
        call = await house.post(
            "/v1/chat/completions", body=CHAT, headers={**key, "content-type": "application/json"}
        )
        assert call.status == 200
        assert not any(name.startswith("access-control") for name, _ in call.headers)


async def test_a_native_door_without_keys_keeps_foreign_pages_out_though_there_are_keys() -> None:
    async with rig(Servers(a=native()), "chatglm2", KEYS, server={"native_auth": "none"}) as house:
        call = await house.post("/", {"prompt": "hi"}, headers={"origin": "https://evil.example"})
        assert call.status == 403


# --- CORS ------------------------------------------------------------------------------------------

ASKED = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-lang",
}


def allowed(call: Call) -> dict[str, str]:
    return {
        name: value for name, value in call.headers if name.startswith("access-control") or name == "vary"
    }


@pytest.mark.parametrize(
    "path", ["/", "/v1/chat/completions", "/chat/completions", "/v1/models", "/v1/models/m", "/x"]
)
@pytest.mark.parametrize("keys", ["", KEYS])
async def test_a_preflight_is_answered_on_every_path_without_a_key(path: str, keys: str) -> None:
    async with rig(Servers(a=native()), "chatglm2", keys, server={"cors_origins": (PAGE,)}) as house:
        call = await fetch(house.gateway.data, "OPTIONS", path, headers=ASKED)
        assert call.status == 204
        assert allowed(call) == {
            "access-control-allow-origin": PAGE,
            "access-control-allow-methods": "GET, POST",
            "access-control-allow-headers": ASKED["access-control-request-headers"],
            "access-control-expose-headers": b", ".join(EXPOSED).decode(),
            "access-control-max-age": "7200",
            "vary": "Origin",
        }
        assert house.access == []


async def test_a_page_on_the_internet_may_ask_for_this_machine_if_it_is_allowed() -> None:
    async with rig(Servers(a=native()), "chatglm2", server={"cors_origins": (PAGE,)}) as house:
        asked = {**ASKED, "access-control-request-private-network": "true"}
        call = await fetch(house.gateway.data, "OPTIONS", "/", headers=asked)
        assert call.header("access-control-allow-private-network") == "true"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", ""])
async def test_a_preflight_of_another_origin_is_refused(origin: str) -> None:
    async with rig(Servers(a=native()), "chatglm2", KEYS, server={"cors_origins": (PAGE,)}) as house:
        call = await fetch(house.gateway.data, "OPTIONS", "/", headers={**ASKED, "origin": origin})
        assert (call.status, call.error["code"]) == (403, "origin_not_allowed")
        assert allowed(call) == {"vary": "Origin"}


async def test_cors_is_off_by_default() -> None:
    async with rig(Servers(a=native()), "chatglm2", KEYS) as house:
        call = await fetch(house.gateway.data, "OPTIONS", "/v1/chat/completions", headers=ASKED)
        assert (call.status, allowed(call)) == (405, {})


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_errors_and_streams_can_be_read_by_an_allowed_page(stream: bool) -> None:
    reply = streaming(*talk("hello")) if stream else whole()
    async with rig(Servers(a=reply), "openai", KEYS, server={"cors_origins": (PAGE,)}) as house:
        key = {"authorization": "Bearer sk-12345678"}
        page = {"origin": PAGE, "content-type": "application/json"}
        good = await house.post(
            "/v1/chat/completions", body={**CHAT, "stream": stream}, headers={**key, **page}
        )
        refused = await house.post("/v1/chat/completions", body={**CHAT, "stream": stream}, headers=page)
        nowhere = await house.get("/v1/nothing", headers={**key, **page})
        assert [call.status for call in (good, refused, nowhere)] == [200, 401, 404]
        for call in (good, refused, nowhere):
            assert call.header("access-control-allow-origin") == PAGE
            assert call.header("vary") == "Origin"
            assert "x-gateway-backend" in (call.header("access-control-expose-headers") or "")
        other = await house.get("/v1/models", headers={**key, "origin": "https://evil.example"})
        assert (other.status, allowed(other)) == (200, {"vary": "Origin"})


@pytest.mark.parametrize(
    ("origins", "origin", "told"),
    [
        pytest.param((PAGE,), PAGE.encode(), PAGE, id="the-one"),
        pytest.param((PAGE,), None, PAGE, id="one-that-is-not-known-yet"),
        pytest.param((PAGE,), b"https://evil.example", None, id="foreign"),
        pytest.param((PAGE, "http://localhost:3000"), None, None, id="one-of-two"),
        pytest.param((PAGE, "http://localhost:3000"), PAGE.encode(), PAGE, id="one-of-two-that-is-known"),
        pytest.param(("*",), None, "*", id="everybody"),
        pytest.param((), PAGE.encode(), None, id="off"),
    ],
)
def test_a_refusal_before_there_is_a_request_can_be_read_by_an_allowed_page(
    origins: tuple[str, ...], origin: bytes | None, told: str | None
) -> None:
    lines = dict(line.split(b": ", 1) for line in rules(cors_origins=origins).early_lines(origin))
    assert lines.get(b"access-control-allow-origin") == (None if told is None else told.encode())
    assert (b"access-control-expose-headers" in lines) is (told is not None)


async def test_with_keys_every_page_may_be_let_in() -> None:
    async with rig(Servers(a=whole()), "openai", KEYS, server={"cors_origins": ("*",)}) as house:
        call = await house.get(
            "/v1/models", headers={"origin": "null", "authorization": "Bearer sk-12345678"}
        )
        assert (call.status, call.header("access-control-allow-origin")) == (200, "*")


async def test_the_admin_plane_lets_no_page_read_it() -> None:
    async with rig(Servers(a=whole()), "openai", server={"cors_origins": (PAGE,)}) as house:
        call = await fetch(house.gateway.admin, "GET", "/metrics", headers={"origin": PAGE})
        assert (call.status, allowed(call)) == (200, {})


async def test_a_reload_changes_who_may_read() -> None:
    async with rig(Servers(a=whole()), "openai", KEYS) as house:
        old = house.gateway.settings
        server = old.server.model_copy(update={"cors_origins": (PAGE,)})
        house.gateway.reconfigure(old.model_copy(update={"server": server}))
        call = await house.get("/v1/models", headers={"origin": PAGE})
        assert call.header("access-control-allow-origin") == PAGE


def test_every_header_of_our_own_can_be_read_by_pages() -> None:
    docs = (Path(__file__).parents[3] / "docs" / "headers.md").read_text(encoding="utf-8")
    sent = docs.partition("## ")[2].partition("## Read")[0]
    own = set(re.findall(r"^\| `(x-gateway-[a-z-]+)` \|", sent, re.MULTILINE)) - {"x-gateway-queue-events"}
    assert own <= {name.decode() for name in EXPOSED}
