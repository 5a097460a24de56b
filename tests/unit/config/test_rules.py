import sys
from pathlib import Path

import pytest

from gateway.config import ConfigError, parse

BACKEND = '[[backends]]\nname = "a"\nurl = "http://h:1"\ndialect = "chatglm2"\nmodels = ["m"]\n'
SECOND = '[[backends]]\nname = "b"\nurl = "http://h:2"\ndialect = "chatglm3"\nmodels = ["m", "m3"]\n'
KEY = '[[keys]]\nname = "team"\nkey = "abcdefgh"\n'
OUTSIDE = '[server]\nlisten = "0.0.0.0:8000"\n'
CARDS = (
    '[[backends]]\nname = "cards"\nurl = "http://cards.svc:1"\ndialect = "chatglm2"\nmodels = ["m"]\n'
    'discover = "dns"\n'
)
DIGEST = "9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab"  # of abcdefgh


def faults(text: str) -> list[str]:
    """Key and message of every fault; empty for a good file."""
    try:
        parse(text, file="c", folder=Path(), environ={})
    except ConfigError as error:
        return [f"{fault.key}: {fault.message}" for fault in error.faults]
    return []


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        pytest.param("", "", "no backends; add a [[backends]] table", id="no-backends"),
        pytest.param(
            BACKEND + BACKEND, "backends[1].name", '"a" is already at backends[0].name', id="backend-twice"
        ),
        pytest.param(
            BACKEND + KEY + KEY.replace("gh", "xy"), "keys[1].name", '"team" is already', id="key-name-twice"
        ),
        pytest.param(
            BACKEND + '[[models]]\nname = "m"\n[[models]]\nname = "m"\n',
            "models[1].name",
            '"m" is already at models[0].name',
            id="model-twice",
        ),
        pytest.param(
            BACKEND + '[[models]]\nname = "m"\naliases = ["x", "m"]\n',
            "models[0].aliases[1]",
            '"m" is already at models[0].name',
            id="alias-of-itself",
        ),
        pytest.param(
            SECOND + '[[models]]\nname = "m"\naliases = ["m3"]\n',
            "models[0].aliases[0]",
            '"m3" is already at backends[0].models[1]',
            id="alias-is-a-model",
        ),
        pytest.param(
            SECOND + '[[models]]\nname = "m"\naliases = ["x"]\n[[models]]\nname = "m3"\naliases = ["x"]\n',
            "models[1].aliases[0]",
            '"x" is already at models[0].aliases[0]',
            id="alias-twice",
        ),
        pytest.param(
            BACKEND.replace('["m"]', '["m", "m"]'),
            "backends[0].models[1]",
            '"m" is already at',
            id="listed-twice",
        ),
        pytest.param(
            BACKEND + '[[models]]\nname = "m"\nbackends = ["gpu"]\n',
            "models[0].backends[0]",
            'no backend is named "gpu"; known: a',
            id="unknown-backend",
        ),
        pytest.param(
            BACKEND.replace('"a"', '"gpu-0"') + '[[models]]\nname = "m"\nbackends = ["gpu-1"]\n',
            "models[0].backends[0]",
            'no backend is named "gpu-1"; did you mean "gpu-0"?',
            id="misspelled-backend",
        ),
        pytest.param(
            BACKEND + '[[models]]\nname = "other"\n',
            "models[0].name",
            'no backend serves "other"; add "other" to the models of a backend',
            id="model-without-backends",
        ),
        pytest.param(
            BACKEND.replace('"m"', '"chatglm2-6b"') + '[[models]]\nname = "chatglm2"\n',
            "models[0].name",
            'no backend serves "chatglm2"; did you mean "chatglm2-6b"?',
            id="misspelled-model",
        ),
        pytest.param(
            BACKEND + SECOND.replace('models = ["m", "m3"]\n', ""),
            "backends[1].name",
            '"b" serves no model',
            id="backend-without-models",
        ),
        pytest.param(
            '[server]\ndefault_model = "mm"\n' + BACKEND,
            "server.default_model",
            'no model is named "mm"; did you mean "m"?',
            id="unknown-default-model",
        ),
        pytest.param(
            BACKEND + KEY + 'models = ["m", "zz"]\n',
            "keys[0].models[1]",
            'no model is named "zz"',
            id="keys-model",
        ),
        pytest.param(
            BACKEND + 'v3_stream = "safe"\n',
            "backends[0].v3_stream",
            "belongs to dialect chatglm3, here it is chatglm2; remove it",
            id="key-of-another-dialect",
        ),
        pytest.param(
            SECOND + 'family = "chatglm3"\n',
            "backends[0].family",
            "belongs to dialect chatglm-cpp or chatglm-cpp-native, here it is chatglm3",
            id="key-of-two-other-dialects",
        ),
        pytest.param(
            BACKEND + f'tls = {{ ca_file = "{__file__}" }}\n',
            "backends[0].tls",
            'make it "https"',
            id="tls-on-http",
        ),
        pytest.param(
            BACKEND.replace("http:", "https:") + f'tls = {{ key_file = "{__file__}" }}\n',
            "backends[0].tls.key_file",
            "give cert_file too",
            id="key-without-certificate",
        ),
        pytest.param(
            '[admin]\nlisten = "127.0.0.1:8000"\n' + BACKEND, "admin.listen", "collide", id="planes-collide"
        ),
        pytest.param(
            '[server]\nlisten = "127.0.0.1:9000"\n' + BACKEND,
            "server.listen",
            "collide",
            id="data-plane-moved",
        ),
        pytest.param(
            OUTSIDE + BACKEND,
            "server.listen",
            "0.0.0.0:8000 can be reached from outside and there are no keys; add a [[keys]] table, or set",
            id="open-to-the-network",
        ),
        pytest.param(
            '[server]\nauth = "keys"\n' + BACKEND,
            "server.auth",
            "add a [[keys]] table",
            id="keys-wanted-but-none",
        ),
        pytest.param(
            '[server]\nauth = "none"\n' + BACKEND + KEY,
            "server.auth",
            "remove one of them",
            id="keys-for-nothing",
        ),
        pytest.param(
            '[server]\ncors_origins = ["*"]\n' + BACKEND,
            "server.cors_origins",
            "list origins, or add [[keys]]",
            id="every-page-without-keys",
        ),
        pytest.param(
            '[server]\ncors_origins = ["*"]\nnative_auth = "none"\n' + BACKEND + KEY,
            "server.cors_origins",
            "list origins instead",
            id="every-page-and-a-door-without-keys",
        ),
        pytest.param(
            '[queue]\nevents = true\nkeepalive_style = "none"\n' + BACKEND,
            "queue.events",
            "remove one of them",
            id="two-styles",
        ),
        pytest.param(
            BACKEND + '[[keys]]\nname = "k"\n',
            "keys[0]",
            "give one of key, key_sha256, key_file",
            id="no-secret",
        ),
        pytest.param(
            BACKEND + KEY + f'key_sha256 = "{DIGEST}"\n',
            "keys[0].key_sha256",
            "key is given too; keep one of them",
            id="two-secrets",
        ),
        pytest.param(
            BACKEND + KEY + f'[[keys]]\nname = "k"\nkey_sha256 = "{DIGEST}"\n',
            "keys[1]",
            "is the same key as keys[0]",
            id="same-key-twice",
        ),
        pytest.param(
            BACKEND + KEY.replace("team", "anonymous"),
            "keys[0].name",
            "requests without a key",
            id="anonymous",
        ),
        pytest.param(
            "[timeouts]\nfirst_token = 90\ntotal = 60\n" + BACKEND,
            "timeouts.first_token",
            "90 s can never pass, total is 60 s; lower it, or raise total",
            id="first-token-above-total",
        ),
        pytest.param(
            BACKEND + "timeouts = { total = 5, between_tokens = 6 }\n",
            "backends[0].timeouts.between_tokens",
            "6 s can never pass, total is 5 s",
            id="between-tokens-above-total-of-a-backend",
        ),
        pytest.param(
            BACKEND + '[[models]]\nname = "m"\ntimeouts = { connect = 6, total = 5 }\n',
            "models[0].timeouts.connect",
            "6 s can never pass, total is 5 s",
            id="connect-above-total-of-a-model",
        ),
        pytest.param(
            BACKEND + '[[models]]\nname = "m"\ncontext = 100\nmax_output = 200\n',
            "models[0].max_output",
            "200 is above context (100)",
            id="output-above-context",
        ),
        pytest.param(
            SECOND + '[[models]]\nname = "m"\nfallbacks = ["m3x"]\n',
            "models[0].fallbacks[0]",
            'no model is named "m3x"; did you mean "m3"?',
            id="fallback-unknown",
        ),
        pytest.param(
            SECOND + '[[models]]\nname = "m"\naliases = ["x"]\ncontext_fallbacks = ["m3", "x"]\n',
            "models[0].context_fallbacks[1]",
            'leads from "m" back to itself; remove it',
            id="fallback-to-itself",
        ),
        pytest.param(
            SECOND
            + '[[models]]\nname = "m"\nfallbacks = ["m3"]\n[[models]]\nname = "m3"\nfallbacks = ["m"]\n',
            "models[1].fallbacks[0]",
            'leads from "m3" back to itself; remove it',
            id="fallbacks-in-a-circle",
        ),
        pytest.param(
            CARDS.replace("cards.svc", "[::1]"),
            "backends[0].url",
            "::1 is an address; discover needs a name that DNS knows",
            id="discover-an-address",
        ),
        pytest.param(
            CARDS + 'addresses = ["10.0.0.1"]\n',
            "backends[0].addresses",
            "discover finds the addresses; remove one of them",
            id="discover-and-addresses",
        ),
        pytest.param(
            CARDS.replace('"dns"', '"srv"'),
            "backends[0].url",
            "has a port, which SRV records name themselves; leave it out",
            id="srv-with-a-port",
        ),
        pytest.param(
            BACKEND + "max_discovered = 3\n",
            "backends[0].max_discovered",
            "does nothing without discover; remove it",
            id="a-limit-for-nothing",
        ),
        pytest.param(
            BACKEND.replace('"a"', '"cards-31"') + CARDS,
            "backends[0].name",
            '"cards-31" is a name that discover gives at backends[1]; choose another name',
            id="a-members-name",
        ),
        pytest.param(
            CARDS.replace('"cards"', f'"{"x" * 62}"'),
            "backends[0].name",
            "longer than 64 characters; shorten it",
            id="members-with-long-names",
        ),
        pytest.param(
            "[discovery]\nmin_ttl = 90\n" + CARDS,
            "discovery.min_ttl",
            "min_ttl is 90 s and max_ttl 60 s; make max_ttl the larger one",
            id="floor-above-ceiling",
        ),
        pytest.param(
            '[discovery]\nnameservers = ["dns.example"]\n' + CARDS,
            "discovery.nameservers[0]",
            '"dns.example" is no IP address, with or without a port',
            id="name-server-by-name",
        ),
    ],
)
def test_what_does_not_fit_together_is_named_with_the_mend(text: str, key: str, message: str) -> None:
    found = faults(text)
    assert len(found) == 1
    assert found[0].startswith(f"{key}: ")
    assert message in found[0]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BACKEND + SECOND, id="dialects-mixed-in-one-model"),
        pytest.param(OUTSIDE + BACKEND + KEY, id="outside-with-keys"),
        pytest.param('[server]\ncors_origins = ["*"]\n' + BACKEND + KEY, id="every-page-with-keys"),
        pytest.param(OUTSIDE + 'auth = "none"\n' + BACKEND, id="outside-without-keys-spelled-out"),
        pytest.param('[server]\nlisten = "unix:/tmp/x"\n' + BACKEND, id="socket-without-keys"),
        pytest.param('[server]\nlisten = "[::1]:8000"\nauth = "none"\n' + BACKEND, id="loopback"),
        pytest.param("[timeouts]\ntotal = 60\n" + BACKEND, id="total-below-a-default"),
        pytest.param(
            '[server]\ndefault_model = "x"\n' + BACKEND + '[[models]]\nname = "m"\naliases = ["x"]\n',
            id="default-model-is-an-alias",
        ),
        pytest.param(BACKEND + KEY + 'models = ["m"]\n', id="key-of-a-model"),
        pytest.param(
            SECOND
            + '[[models]]\nname = "m"\ncontext_fallbacks = ["m3"]\n'
            + '[[models]]\nname = "m3"\nfallbacks = ["m"]\n',
            id="fallbacks-that-cross",
        ),
        pytest.param(BACKEND + '[[models]]\nname = "n"\nbackends = ["a"]\n', id="model-names-its-backend"),
        pytest.param(
            '[server]\nlisten = "127.0.0.1:0"\n[admin]\nlisten = "127.0.0.1:0"\n' + BACKEND,
            id="ports-chosen-by-system",
        ),
        pytest.param(CARDS + BACKEND.replace('"a"', '"cards-32"'), id="a-name-beyond-the-members"),
        pytest.param(CARDS.replace(":1", "").replace('"dns"', '"srv"'), id="srv-without-a-port"),
        pytest.param("[discovery]\nmin_ttl = 9\nmax_ttl = 9\n" + CARDS, id="floor-at-the-ceiling"),
        pytest.param(BACKEND + 'addresses = ["10.0.0.1", "fd00::1"]\n', id="addresses"),
        pytest.param(SECOND + 'v3_stream = "safe"\nvariant = "2023-11"\n', id="key-of-its-dialect"),
    ],
)
def test_what_fits_together_passes(text: str) -> None:
    assert faults(text) == []


def test_discovery_without_its_package_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dns", None)
    (fault,) = faults(CARDS)
    assert fault.startswith(
        'backends[0].discover: needs dnspython, which the extra "dns" brings; in a checkout: pip install '
    )
    assert faults(BACKEND) == []
