import json
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from gateway import __version__
from gateway.cli.main import main
from gateway.config import Config, load
from gateway.simulator import Options

GOOD = """
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[[backends]]
name = "gpu-0"
url = "http://127.0.0.1:8001"
dialect = "chatglm2"
models = ["${MODEL:-chatglm2-6b}"]
api_key = "hunter2hunter2"
"""


def call(*words: str, environ: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, list(words), env=environ)


def config_file(folder: Path, text: str = GOOD) -> str:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_good_file_is_counted(tmp_path: Path) -> None:
    path = config_file(tmp_path)
    result = call("check", "--config", path)
    first, *rest = result.output.splitlines()
    assert (result.exit_code, first) == (0, f"{path}: ok (1 model, 1 backend)")
    assert rest == [
        "  gpu-0 (chatglm2): POST http://127.0.0.1:8001/, GET http://127.0.0.1:8001/openapi.json",
    ]


@pytest.mark.parametrize(
    ("url", "dialect", "extra", "line"),
    [
        ("http://h:1/v1", "openai", "", "POST http://h:1/v1/chat/completions, GET http://h:1/v1/models"),
        ("http://h:1", "chatglm-stream", "", "POST http://h:1/stream and http://h:1/chat, GET http://h:1/"),
        ("http://h:1/chat", "chatglm2", "health = { probes = false }", "POST http://h:1/chat"),
        ("https://h", "openai", 'path = "/x?y=1"', "POST https://h/x?y=1, GET https://h/v1/models"),
    ],
)
def test_check_prints_what_will_be_called(
    tmp_path: Path, url: str, dialect: str, extra: str, line: str
) -> None:
    text = GOOD.replace("http://127.0.0.1:8001", url).replace('"chatglm2"', f'"{dialect}"') + extra + "\n"
    result = call("check", "--config", config_file(tmp_path, text))
    assert result.output.splitlines()[1:] == [f"  gpu-0 ({dialect}): {line}"]


@pytest.mark.parametrize("command", ["check", "serve"])
def test_backend_that_is_the_gateway_itself_is_refused(tmp_path: Path, command: str) -> None:
    text = GOOD.replace('"127.0.0.1:0"', '"127.0.0.1:8001"', 1)
    result = call(command, "--config", config_file(tmp_path, text))
    assert result.exit_code == 2
    assert "backends[0].url: is the gateway's own address (server.listen is 127.0.0.1:8001)" in result.stderr


def test_the_config_file_may_come_from_the_environment(tmp_path: Path) -> None:
    assert call("check", environ={"GATEWAY_CONFIG": config_file(tmp_path)}).exit_code == 0


@pytest.mark.parametrize("command", ["check", "serve", "healthcheck"])
def test_every_fault_of_a_bad_file_goes_to_standard_error(tmp_path: Path, command: str) -> None:
    path = config_file(tmp_path, GOOD.replace("url", "ulr").replace("dialect =", "dialct ="))
    result = call(command, "--config", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        f'{path}:8: backends[0].ulr: unknown key; did you mean "url"?',
        f'{path}:9: backends[0].dialct: unknown key; did you mean "dialect"?',
    ]


def test_a_missing_file_is_told_without_a_traceback(tmp_path: Path) -> None:
    result = call("check", "--config", str(tmp_path / "none.toml"))
    assert result.exit_code == 2
    assert "cannot be read" in result.stderr


def test_show_prints_only_toml_without_secrets(tmp_path: Path) -> None:
    result = call("check", "--show", "--config", config_file(tmp_path), environ={"MODEL": "m"})
    data = tomllib.loads(result.stdout)
    assert data["models"][0]["name"] == "m"
    assert data["backends"][0]["api_key"] == "***"
    assert "ok (1 model, 1 backend)" in result.stderr


@pytest.mark.parametrize("command", ["check", "serve"])
def test_backends_from_dns_need_their_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    path = config_file(tmp_path, GOOD.replace("127.0.0.1:8001", "cards.svc:8001") + 'discover = "dns"\n')
    assert call("check", "--config", path, environ={"MODEL": "m"}).exit_code == 0
    monkeypatch.setitem(sys.modules, "dns", None)
    result = call(command, "--config", path, environ={"MODEL": "m"})
    assert (result.exit_code, result.stdout) == (2, "")
    assert (
        'backends[0].discover: needs dnspython, which the extra "dns" brings; in a checkout: pip install'
        in result.stderr
    )


def test_a_port_in_use_fails_the_check_and_names_the_key(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        path = config_file(tmp_path, GOOD.replace('"127.0.0.1:0"', f'"127.0.0.1:{port}"', 1))
        result = call("check", "--config", path)
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"server.listen: 127.0.0.1:{port} is in use by another program" in result.stderr
        assert f"such as: gateway serve --config {path} --listen 127.0.0.1:80" in result.stderr
        assert call("check", "--no-bind", "--config", path).exit_code == 0


def test_the_schema_is_json() -> None:
    assert json.loads(call("schema").output)["title"] == "ChatGLM gateway: config.toml"


@pytest.mark.parametrize("words", [["version"], ["--version"]])
def test_the_version_is_one_line(words: list[str]) -> None:
    assert call(*words).output == f"gateway {__version__}\n"


@pytest.mark.parametrize("status", [0, 3])
def test_serve_hands_over_the_config_and_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    served: list[Config] = []

    def serve(config: Config, path: Path, given: dict[str, object]) -> int:
        assert path.name == "config.toml"
        assert given == {}
        served.append(config)
        return status

    server = ModuleType("gateway.server")
    monkeypatch.setattr(server, "serve", serve, raising=False)
    monkeypatch.setitem(sys.modules, "gateway.server", server)
    assert call("serve", "--config", config_file(tmp_path)).exit_code == status
    assert served[0].backends[0].name == "gpu-0"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Config, Path | None]]:
    """What `serve` was asked to run."""
    runs: list[tuple[Config, Path | None]] = []

    def serve(config: Config, path: Path | None, given: dict[str, object]) -> int:
        runs.append((config, path))
        assert "server" not in given or config.server.listen == given["server"]["listen"]  # type: ignore[index]
        return 0

    server = ModuleType("gateway.server")
    monkeypatch.setattr(server, "serve", serve, raising=False)
    monkeypatch.setitem(sys.modules, "gateway.server", server)
    return runs


Served = list[tuple[Config, Path | None]]


def test_addresses_of_options_win_over_the_file(tmp_path: Path, served: Served) -> None:
    path = config_file(tmp_path)
    assert (
        call("serve", "-c", path, "--listen", "127.0.0.1:7", "--admin-listen", "127.0.0.1:8").exit_code == 0
    )
    ((config, file),) = served
    assert (config.server.listen, config.admin.listen, str(file)) == ("127.0.0.1:7", "127.0.0.1:8", path)


@pytest.mark.parametrize(
    ("listen", "message"),
    [
        ("8080", 'server.listen: "8080" has no port; write host:port'),
        ("0.0.0.0:8080", "server.listen: 0.0.0.0:8080 can be reached from outside and there are no keys"),
        ("127.0.0.1:8001", "backends[0].url: is the gateway's own address"),
    ],
)
def test_address_of_an_option_is_checked_like_the_file(
    tmp_path: Path, served: Served, listen: str, message: str
) -> None:
    result = call("serve", "--config", config_file(tmp_path), "--listen", listen)
    assert (result.exit_code, served) == (2, [])
    assert message in result.stderr


def test_serve_runs_without_a_file(served: Served) -> None:
    result = call("serve", "--backend", "http://h:1", "--backend", "http://h:2/", "--dialect", "chatglm3")
    assert result.exit_code == 0
    ((config, file),) = served
    assert file is None
    assert [(one.name, one.url, one.models) for one in config.backends] == [
        ("gpu-0", "http://h:1", ("chatglm3-6b",)),
        ("gpu-1", "http://h:2", ("chatglm3-6b",)),
    ]


def test_serve_beside_a_server_on_the_default_port_listens_elsewhere(served: Served) -> None:
    result = call("serve", "--backend", "http://127.0.0.1:8000", "--dialect", "chatglm", "--model", "m")
    assert result.exit_code == 0
    assert served[0][0].server.address.port >= 8080
    assert f"the gateway listens on {served[0][0].server.listen}" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dialect", "chatglm"], "belong to --backend URL"),
        (["--backend", "http://h:1", "--config", "x.toml"], "takes the place of a config file"),
        (["--backend", "h:1"], "is no URL; write http://HOST:PORT"),
        (["--backend", "http://h:1", "--dialect", "ChatGLM2"], 'did you mean "chatglm2"?'),
        (["--backend", "http://127.0.0.1:1"], "is it running?"),
        (["--backend", "http://127.0.0.1:1", "--dialect", "openai"], "say which it serves: --model NAME"),
    ],
)
def test_serve_says_what_is_wrong_with_its_options(served: Served, words: list[str], message: str) -> None:
    result = call("serve", *words)
    assert (result.exit_code, served) == (2, [])
    assert message in result.stderr


def test_serve_on_a_taken_port_names_address_key_and_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        words = ["serve", "--config", config_file(tmp_path), "--listen", listen]
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *words], capture_output=True, text=True, timeout=50, check=False
        )
    assert done.returncode == 1, done.stderr
    (line,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert line["reason"].startswith(f"server.listen: {listen} is in use by another program")
    assert f"gateway serve --config {words[2]} --listen 127.0.0.1:80" in line["reason"]


def test_init_writes_a_file_that_is_good(tmp_path: Path) -> None:
    path = tmp_path / "new.toml"
    words = ["--backend", "http://127.0.0.1:8000", "--dialect", "chatglm2", "--model", "$模型"]
    result = call("init", "--config", str(path), *words)
    assert result.exit_code == 0, result.output
    assert f"{path} is written. Next: gateway check --config {path}, then gateway serve" in result.stdout
    settings = load(path, {})
    assert settings.backends[0].models == ("$模型",)
    assert settings.server.address.port >= 8080
    again = call("init", "--config", str(path), *words)
    assert again.exit_code == 2
    assert "is there already" in again.stderr
    assert call("init", "--config", str(path), *words, "--force").exit_code == 0


def test_init_asks_for_what_is_not_told(tmp_path: Path) -> None:
    path = tmp_path / "new.toml"
    typed = "http://127.0.0.1:1\nchatglm3\n\n"
    result = CliRunner().invoke(main, ["init", "--config", str(path)], input=typed)
    assert result.exit_code == 0, result.output
    backend = load(path, {}).backends[0]
    assert (backend.url, backend.dialect, backend.models) == (
        "http://127.0.0.1:1",
        "chatglm3",
        ("chatglm3-6b",),
    )


@pytest.mark.parametrize("url", ["http://h:99999", "http://[::1", "http://h:x", "ftp://h", "h", "http://"])
@pytest.mark.parametrize("words", [[], ["--dialect", "chatglm"]])
def test_bad_url_of_an_option_is_told_without_a_traceback(served: Served, url: str, words: list[str]) -> None:
    result = call("serve", "--backend", url, *words)
    assert (result.exit_code, served) == (2, [])
    assert "URL" in result.stderr
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("command", ["init", "serve"])
@pytest.mark.parametrize("words", [[], ["--dialect", "chatglm"], ["--dialect", "openai"]])
@pytest.mark.parametrize("password", ["swordfish", "fish/fish", "fish?fish", "fish#fish", "fish@fish"])
@pytest.mark.parametrize(
    "url", ["http://u:%@h:1", "u:%@h:1", "http:/u:%@h", "ftp://u:%@h", "http://u:%\uff20h"]
)
def test_password_in_the_url_of_an_option_is_never_repeated(
    tmp_path: Path, served: Served, command: str, words: list[str], password: str, url: str
) -> None:
    place = ["--config", str(tmp_path / "new.toml")] if command == "init" else []
    result = call(command, *place, "--backend", url.replace("%", password), *words)
    assert (result.exit_code, served) == (2, [])
    assert "URL" in result.stderr
    assert "fish" not in result.output


def test_url_with_a_password_is_refused_before_anybody_is_asked(served: Served) -> None:
    result = call("serve", "--backend", "http://h:1", "--backend", "http://:swordfish@h:2")
    assert (result.exit_code, served) == (2, [])
    assert "put the key into api_key in the config file" in result.stderr


def test_init_says_where_it_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "none" / "new.toml"
    result = call("init", "-c", str(path), "--backend", "http://h:1", "--dialect", "chatglm")
    assert result.exit_code == 1
    assert f"{path} cannot be written: No such file or directory" in result.stderr


def test_init_writes_no_bad_file(tmp_path: Path) -> None:
    path = tmp_path / "new.toml"
    result = call("init", "-c", str(path), "--backend", "http://h:1", "--dialect", "openai", "--model", "a b")
    assert result.exit_code == 2
    assert "backends[0].models[0]: a name without blanks is wanted" in result.stderr
    assert not path.exists()


def test_simulate_makes_options_of_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Options] = []
    monkeypatch.setattr("gateway.simulator.run", lambda *options, ready: ran.extend(options))
    words = (
        "--dialect chatglm --port 0 --brain echo --latency 0.5 --speed 9 --reply 你好 --fault status:500*2"
    )
    result = call("simulate", *words.split(), "--fault", "reset")
    assert result.exit_code == 0
    assert ran == [
        Options(
            dialect="chatglm",
            port=0,
            brain="echo",
            latency=0.5,
            speed=9,
            reply="你好",
            faults=("status:500*2", "reset"),
            sleep=ran[0].sleep,
        )
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["--dialect", "chatglm9"], "unknown dialect", id="dialect"),
        pytest.param(["--dialect", "chatglm2", "--variant", "1"], "unknown variant", id="variant"),
        pytest.param(["--dialect", "chatglm2", "--fault", "boom"], "unknown fault", id="fault"),
        pytest.param([], "Missing option '--dialect'", id="no-dialect"),
        pytest.param(
            ["--dialect", "chatglm2", "--model-file", "/no/such"], "does not exist", id="model-file"
        ),
    ],
)
def test_simulate_refuses_what_it_does_not_know(words: list[str], message: str) -> None:
    result = call("simulate", *words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_simulate_says_that_its_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = call("simulate", "--dialect", "chatglm2", "--port", str(port))
    assert result.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in result.stderr


def test_demo_hands_over_its_options_and_the_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def run_demo(**options: object) -> int:
        asked.update(options)
        return 1

    monkeypatch.setattr("gateway.cli.demo.run_demo", run_demo)
    assert call("demo", "--port", "0", "--once").exit_code == 1
    assert (asked["port"], asked["brain"], asked["model_file"], asked["once"]) == (0, "canned", None, True)


@pytest.mark.parametrize(
    ("words", "path", "well"),
    [
        pytest.param([], "/livez", True, id="alive"),
        pytest.param(["--ready"], "/readyz", True, id="ready"),
        pytest.param([], "/livez", False, id="dead"),
    ],
)
def test_healthcheck_tells_by_its_exit_status(
    monkeypatch: pytest.MonkeyPatch, words: list[str], path: str, *, well: bool
) -> None:
    asked: list[object] = []

    def probe(*arguments: object) -> tuple[bool, str]:
        asked.append(arguments)
        return well, "one line"

    monkeypatch.setattr("gateway.cli.healthcheck.probe", probe)
    result = call("healthcheck", "--url", "http://h:1", *words)
    assert asked == [("http://h:1", path, 2.0)]
    assert result.exit_code == (0 if well else 1)
    assert result.output == "one line\n"


def test_healthcheck_finds_the_admin_plane_in_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def probe(url: str, *_: object) -> tuple[bool, str]:
        asked.append(url)
        return True, ""

    monkeypatch.setattr("gateway.cli.healthcheck.probe", probe)
    text = GOOD.replace('[admin]\nlisten = "127.0.0.1:0"', '[admin]\nlisten = "0.0.0.0:9111"')
    assert call("healthcheck", "--config", config_file(tmp_path, text)).exit_code == 0
    assert asked == ["http://127.0.0.1:9111"]


def test_healthcheck_of_a_url_starts_without_the_heavy_libraries() -> None:
    program = (
        "import sys; from gateway.cli.main import main\n"
        "try: main(['healthcheck', '--url', 'http://127.0.0.1:9'])\n"
        "except SystemExit as end: status = end.code\n"
        "heavy = {'pydantic', 'starlette', 'uvicorn', 'httpx', 'asyncio'} & set(sys.modules)\n"
        "print(status, sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1 []\n"


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_explains_itself(command: str) -> None:
    result = call(command, "-h")
    assert result.exit_code == 0
    assert str(main.commands[command].help).splitlines()[0] in " ".join(result.output.split())


def request_file(folder: Path, model: str = "chatglm2-6b") -> str:
    path = folder / "request.json"
    path.write_text(json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]}))
    return str(path)


def test_a_request_is_explained_as_text_or_as_json(tmp_path: Path) -> None:
    words = ["explain", request_file(tmp_path), "--config", config_file(tmp_path), "--offline"]
    text, data = call(*words), call(*words, "--json")
    assert (text.exit_code, data.exit_code) == (0, 0)
    assert text.output.startswith("chatglm2-6b, a whole answer: begins at chatglm2-6b\n")
    assert json.loads(data.output)["starts"] == "chatglm2-6b"


def test_an_explanation_does_without_a_running_gateway(tmp_path: Path) -> None:
    config = config_file(tmp_path)
    result = call("explain", request_file(tmp_path), "--config", config, "--url", "http://127.0.0.1:1")
    assert result.exit_code == 0
    assert "states: unknown" in result.output


def test_what_the_gateway_refuses_itself_cannot_be_explained(tmp_path: Path) -> None:
    result = call("explain", request_file(tmp_path, "x"), "--config", config_file(tmp_path), "--offline")
    assert result.exit_code == 1
    assert "404 model_not_found: There is no model 'x'" in result.stderr
