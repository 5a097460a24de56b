"""The command line: serve, check, explain, schema, simulate, demo, healthcheck, version.

Each command imports what it runs only when it runs, so that `check` and `healthcheck` start fast.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

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


@click.group(context_settings={"help_option_names": ["--help", "-h"]})
@click.version_option(__version__, prog_name="gateway", message="%(prog)s %(version)s")
def main() -> None:
    """One OpenAI endpoint in front of ChatGLM servers and their like.

    Try it without a graphics card: gateway demo
    """


@main.command()
@_config_option
def serve(path: Path) -> None:
    """Run the gateway until SIGTERM or Ctrl-C. SIGHUP has it read its config file again."""
    config = _loaded(path, serving=True)
    from gateway.server import serve as run_server

    sys.exit(run_server(config, path))


@main.command()
@_config_option
@click.option("--show", is_flag=True, help="Print every effective value as TOML, secrets as ***.")
@click.option("--no-bind", is_flag=True, help="Do not try the addresses; for a gateway that is running.")
def check(path: Path, *, show: bool, no_bind: bool) -> None:
    """Check the config file and whether its addresses are free."""
    config = _loaded(path, serving=True)
    from gateway.config.warnings import warnings

    for warning in warnings(config):
        click.echo(f"{path}: warning: {warning}", err=True)
    obstacles = [] if no_bind else _obstacles(config)
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
    from gateway.errors import GatewayError
    from gateway.explain import explained, live_state, told
    from gateway.healthcheck import url_of

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
    from gateway.demo import run_demo

    sys.exit(run_demo(port=port, brain=brain, model_file=model_file, once=once, say=_say))


@main.command()
@_config_option
@click.option("--url", help="The admin plane (http://HOST:PORT or unix:/PATH); the config file is not read.")
@click.option("--ready", is_flag=True, help="Ask /readyz (can it serve?) instead of /livez (does it run?).")
@click.option(
    "--timeout", type=click.FloatRange(0.01), default=2.0, show_default=True, help="Seconds to wait."
)
def healthcheck(path: Path, url: str | None, timeout: float, *, ready: bool) -> None:
    """Ask a running gateway whether it is well; exit status 0 or 1."""
    from gateway.healthcheck import probe, url_of

    url = url or url_of(_loaded(path).admin.listen)
    well, line = probe(url, "/readyz" if ready else "/livez", timeout)
    click.echo(line, err=not well)
    sys.exit(0 if well else EXIT_UNHEALTHY)


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"gateway {__version__}")


def _loaded(path: Path, *, serving: bool = False) -> Config:
    """Load a config file, or print all its faults and leave. `serving`: its addresses have to fit as well."""
    from gateway.config import ConfigError, load

    try:
        config = load(path, os.environ)
        if serving:
            from gateway.config.loops import refuse_loops

            refuse_loops(config, path)
        return config
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_CONFIG)


def _obstacles(config: Config) -> list[str]:
    from gateway.config.binding import obstacle

    planes = {"server.listen": config.server.address, "admin.listen": config.admin.address}
    found = {key: obstacle(address) for key, address in planes.items()}
    return [f"{key}: {what}" for key, what in found.items() if what]


def _called(config: Config) -> Iterator[str]:
    """What will be called, a line for each backend."""
    from gateway.config.calls import endpoints_of
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
