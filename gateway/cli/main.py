"""The command line: serve, init, check, explain, schema, simulate, demo, healthcheck, version.

Each command imports what it runs only when it runs, so that `check` and `healthcheck` start fast.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from gateway import __version__

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.simulator import Options, Simulator

EXIT_UNHEALTHY = 1
EXIT_CONFIG = 2
"""A config file that cannot be used; click's own status for wrong options is the same."""

_config_option = click.option(
    "--config",
    "-c",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default="config.toml",
    envvar="GATEWAY_CONFIG",
    show_default=True,
    show_envvar=True,
    help="The config file.",
)


_dialect_option = click.option(
    "--dialect", metavar="NAME", help="What the server speaks.  [default: found out by asking it]"
)
_model_option = click.option(
    "--model", metavar="NAME", help="The model it serves, as clients will ask for it.  [default: as it says]"
)


@click.group(context_settings={"help_option_names": ["--help", "-h"]})
@click.version_option(__version__, prog_name="gateway", message="%(prog)s %(version)s")
def main() -> None:
    """One OpenAI endpoint in front of ChatGLM servers and their like.

    Try it without a graphics card: gateway demo
    """


@main.command()
@_config_option
@click.option("--listen", metavar="ADDRESS", help="Where clients connect, such as 127.0.0.1:8080.")
@click.option("--admin-listen", metavar="ADDRESS", help="Where probes and metrics are.")
@click.option(
    "--backend", "urls", multiple=True, metavar="URL", help="A model server, instead of a config file."
)
@_dialect_option
@_model_option
@click.pass_context
def serve(
    context: click.Context,
    path: Path,
    listen: str | None,
    admin_listen: str | None,
    urls: tuple[str, ...],
    dialect: str | None,
    model: str | None,
) -> None:
    """Run the gateway until SIGTERM or Ctrl-C. SIGHUP has it read its config file again.

    Without a file: gateway serve --backend http://127.0.0.1:8001
    """
    _hold_hangups()
    given: dict[str, Any] = {}
    if not urls and (dialect or model):
        raise click.UsageError("--dialect and --model belong to --backend URL")
    if urls:
        if context.get_parameter_source("path") is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError("--backend takes the place of a config file; leave --config out")
        given["backends"], listen = _backends_at(urls, dialect, model, listen)
    if listen is not None:
        given["server"] = {"listen": listen}
    if admin_listen is not None:
        given["admin"] = {"listen": admin_listen}
    file = None if urls else path
    config = _loaded(file, serving=True, given=given)
    from gateway.server import serve as run_server

    sys.exit(run_server(config, file, given))


@main.command()
@click.option(
    "--config",
    "-c",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default="config.toml",
    show_default=True,
    help="The file to write.",
)
@click.option("--backend", "url", metavar="URL", help="The model server; asked for where it is left out.")
@_dialect_option
@_model_option
@click.option("--listen", metavar="ADDRESS", help="Where clients will connect.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def init(
    path: Path, url: str | None, dialect: str | None, model: str | None, listen: str | None, *, force: bool
) -> None:
    """Write a config file for one model server, which is asked by GETs what it is; nothing is generated."""
    if path.exists() and not force:
        raise click.UsageError(
            f"{path} is there already; name another with --config, or write over it: --force"
        )
    call = url is None
    if url is None:
        url = click.prompt("Address of the model server", default="http://127.0.0.1:8000")
    from gateway.cli.init_config import written
    from gateway.config import ConfigError

    backends, listen = _backends_at((url,), dialect, model, listen, call=call)
    try:
        text = written(backends, listen)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_CONFIG)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from error
    option = "" if str(path) == "config.toml" else f" --config {shlex.quote(str(path))}"
    click.echo(f"{path} is written. Next: gateway check{option}, then gateway serve{option}")


@main.command()
@_config_option
@click.option("--show", is_flag=True, help="Print every effective value as TOML, secrets as ***.")
@click.option("--no-bind", is_flag=True, help="Do not try the addresses; for a gateway that is running.")
def check(path: Path, *, show: bool, no_bind: bool) -> None:
    """Check the config file and whether its addresses are free."""
    config = _loaded(path, serving=True)
    from gateway.config.binding import obstacles as found
    from gateway.config.warnings import warnings

    for warning in warnings(config):
        click.echo(f"{path}: warning: {warning}", err=True)
    obstacles = [] if no_bind else found(config, path)
    for obstacle in obstacles:
        click.echo(f"{path}: {obstacle}", err=True)
    if show:
        from gateway.config import effective

        click.echo(effective(config), nl=False)
    if obstacles:
        sys.exit(EXIT_CONFIG)
    counts = f"{_count(len(config.resolved_models), 'model')}, {_count(len(config.backends), 'backend')}"
    click.echo(f"{path}: ok ({counts})", err=show)
    for line in _called(config):
        click.echo(line, err=show)


@main.command()
@click.argument("request_file", metavar="REQUEST.json", type=click.File("rb"))
@_config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@click.option("--url", help="The admin plane of the running gateway.  [default: from the config]")
@click.option("--offline", is_flag=True, help="Do not ask a running gateway how its backends are.")
def explain(request_file: BinaryIO, path: Path, url: str | None, *, as_json: bool, offline: bool) -> None:
    """Say where a chat request would go now, with which limits, and why; - reads it from standard input."""
    config = _loaded(path)
    from gateway.cli.explain import explained, live_state, told
    from gateway.cli.healthcheck import url_of
    from gateway.errors import GatewayError

    live = None if offline else live_state(url or url_of(config.admin.listen))
    try:
        way = explained(config, request_file.read(), live)
    except GatewayError as error:
        raise click.ClickException(f"{error.row.status} {error.code or ''}: {error.message}") from error
    click.echo(json.dumps(way, indent=2, ensure_ascii=False) if as_json else told(way))


@main.command()
def schema() -> None:
    """Print the JSON Schema of config.toml, for editors."""
    from gateway.config import schema as describe

    click.echo(json.dumps(describe(), indent=2, ensure_ascii=False))


@main.command()
@click.option(
    "--dialect", required=True, metavar="NAME", help="The server program: chatglm, chatglm2, glm4, ..."
)
@click.option("--variant", metavar="NAME", help="Its edition, where it has several.  [default: the newest]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8001, show_default=True, help="0: any free port."
)
@click.option(
    "--brain",
    type=click.Choice(["canned", "echo", "llama"]),
    default="canned",
    show_default=True,
    help="What answers: set sentences, the request itself, or a real small model.",
)
@click.option(
    "--model-file",
    type=click.Path(exists=True, path_type=Path),
    help="The model of the llama brain: a .gguf file, or a wheel that holds one.  [default: .models]",
)
@click.option("--latency", type=click.FloatRange(0), default=0.0, help="Seconds before the first piece.")
@click.option(
    "--speed", type=click.FloatRange(0), default=0.0, help="Characters a second.  [default: all at once]"
)
@click.option("--reply", metavar="TEXT", help="The same answer to every question.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND[:VALUE][*TIMES][@PATH]",
    help="A mishap to play, such as status:503*2 or cut:3; may be repeated.",
)
def simulate(model_file: Path | None, faults: tuple[str, ...], **options: str | float | None) -> None:
    """Run one simulated model server until Ctrl-C."""
    from gateway.simulator import Options, run

    chosen = Options(model=model_file, faults=faults, **options)  # type: ignore[arg-type]  # click has checked types
    _try_simulator(chosen)
    try:
        run(chosen, ready=_announce)
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {chosen.host}:{chosen.port}: {error.strerror}"
        ) from error


@main.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="If taken, the next free one.",
)
@click.option(
    "--brain",
    type=click.Choice(["canned", "llama"]),
    default="canned",
    show_default=True,
    help="What answers.",
)
@click.option(
    "--model-file",
    type=click.Path(exists=True, path_type=Path),
    help="The model of the llama brain: a .gguf file, or a wheel that holds one.  [default: .models]",
)
@click.option("--once", is_flag=True, help="End after the questions the demo asks by itself.")
def demo(port: int, brain: str, model_file: Path | None, *, once: bool) -> None:
    """Run simulated servers and the gateway over them, without graphics card or config."""
    from gateway.cli.demo import run_demo

    sys.exit(run_demo(port=port, brain=brain, model_file=model_file, once=once, say=_say))


@main.command()
@_config_option
@click.option("--url", help="The admin plane (http://HOST:PORT or unix:/PATH); the config file is not read.")
@click.option("--ready", is_flag=True, help="Ask /readyz (can it serve?) instead of /livez (does it run?).")
@click.option(
    "--timeout",
    type=click.FloatRange(0.01),
    default=2.0,
    show_default=True,
    help="Seconds to wait for each answer.",
)
@click.option("--wait", type=click.FloatRange(0), default=0.0, help="Seconds to ask again until it is well.")
def healthcheck(path: Path, url: str | None, timeout: float, wait: float, *, ready: bool) -> None:
    """Ask a running gateway whether it is well; exit status 0 or 1."""
    from gateway.cli.healthcheck import url_of, wait_well

    url = url or url_of(_loaded(path).admin.listen)
    well, line = wait_well(url, "/readyz" if ready else "/livez", timeout, wait, time.monotonic, time.sleep)
    click.echo(line, err=not well)
    sys.exit(0 if well else EXIT_UNHEALTHY)


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"gateway {__version__}")


def _backends_at(
    urls: tuple[str, ...], dialect: str | None, model: str | None, listen: str | None, *, call: bool = False
) -> tuple[list[dict[str, Any]], str | None]:
    """Tables for model servers of one kind, and where to listen beside them; asks for what is not told."""
    from gateway.cli.healthcheck import without_secrets
    from gateway.cli.init_config import USUAL_MODELS, examined, listening, names_user, tables
    from gateway.config import DIALECTS
    from gateway.config.messages import did_you_mean

    told = without_secrets(urls[0])
    if any(map(names_user, urls)):
        raise click.UsageError(
            "the URL of the model server holds a name or password; leave it out, and put the key into api_key"
            " in the config file"
        )

    if dialect is not None and dialect not in DIALECTS:
        near = did_you_mean(dialect, DIALECTS)
        raise click.UsageError(f"there is no dialect {dialect}{near}; known: {', '.join(DIALECTS)}")
    if dialect is None or (model is None and dialect not in USUAL_MODELS):
        found = examined(urls[0], model)
        if dialect is None and found.dialect is None and not call:
            raise click.UsageError(f"{told}: {found.why}; or name its dialect: --dialect NAME")
        click.echo(f"{told}: {_as_found(found.dialect, dialect)} ({found.why})", err=True)
        dialect = dialect or found.dialect
        model = model or found.model
    if call:
        dialect = click.prompt("Its dialect", default=dialect, type=click.Choice(DIALECTS))
        model = click.prompt("The model it serves", default=model or USUAL_MODELS.get(str(dialect)))
    model = model or USUAL_MODELS.get(str(dialect))
    if model is None:
        raise click.UsageError(f"{told} names no model; say which it serves: --model NAME")
    chosen = listening(urls, listen)
    if chosen != listen:
        click.echo(f"port 8000 is the model server's; the gateway listens on {chosen}", err=True)
    return tables(urls, str(dialect), model), chosen


def _as_found(found: str | None, told: str | None) -> str:
    if told is not None:
        return f"dialect {told}, as told"
    return f"looks like dialect {found}" if found else "its dialect could not be found out"


def _hold_hangups() -> None:
    """Let SIGHUP wait until the gateway runs: by default it ends a process."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def _loaded(path: Path | None, *, serving: bool = False, given: Mapping[str, Any] | None = None) -> Config:
    """Load a config file, or print all its faults and leave. `serving`: its addresses have to fit as well.

    `given` is what options say; without a file it is everything.
    """
    from gateway.config import ConfigError, load, parse

    try:
        if path is None:
            config = parse("", file="options", folder=Path(), environ={}, given=given or {})
        else:
            config = load(path, os.environ, given or {})
        if serving:
            from gateway.config.loops import refuse_loops

            refuse_loops(config, path)
        return config
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_CONFIG)


def _called(config: Config) -> Iterator[str]:
    """What will be called, a line for each backend."""
    from gateway.config.call_urls import endpoints_of
    from gateway.upstream.backend import probe_path

    for backend in config.backends:
        calls = backend.calls
        posts = " and ".join(dict.fromkeys(map(calls.url, endpoints_of(backend.dialect))))
        probes = f", GET {calls.origin}{probe_path(backend)}" if config.health_of(backend).probes else ""
        yield f"  {backend.name} ({backend.dialect}): POST {posts}{probes}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _try_simulator(options: Options) -> None:
    """Make a simulator without starting it: it knows which names, faults and files it can take."""
    from gateway.simulator import Simulator
    from gateway.simulator.llama import ModelMissingError

    try:
        Simulator(options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except ModelMissingError as error:
        raise click.ClickException(str(error)) from error


def _announce(simulators: list[Simulator]) -> None:
    for simulator in simulators:
        click.echo(f"simulated {simulator.options.dialect} on {simulator.url} (Ctrl-C ends it)")


_say: Callable[[str], None] = click.echo
