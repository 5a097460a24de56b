"""README.md and README.zh-CN.md are of equal rank, and what they and the pages under docs/ print is true."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from gateway.cli.main import main
from gateway.config import parse
from gateway.dialects import DIALECTS
from gateway.dialects.shared.losses import NAMES
from gateway.simulator import Options
from tests.support.programs import python_of
from tests.support.stack import Stack, stack, threaded

ROOT = Path(__file__).parents[2]
ENGLISH = ROOT / "README.md"
CHINESE = ROOT / "README.zh-CN.md"
READMES = (ENGLISH, CHINESE)
PAGES = [*READMES, ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
SEPARATOR = re.compile(r"^\|[ |:-]+\|$")


def shown(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks_of(page: Path, *languages: str) -> list[str]:
    """The contents of the page's fenced blocks in these languages (none given: all, with their fences)."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text_of(page), re.DOTALL | re.MULTILINE)
    if not languages:
        return [f"```{language}\n{content}```" for language, content in found]
    return [content for language, content in found if language in languages]


def prose_of(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def headings_of(page: Path) -> list[tuple[int, str]]:
    return [(len(marks), title) for marks, title in re.findall(r"^(#+) (.+)$", prose_of(page), re.MULTILINE)]


def tables_of(page: Path) -> list[list[list[str]]]:
    """Every table as rows of cells, its line of dashes left out."""
    lines = prose_of(page).splitlines()
    runs = [list(run) for is_table, run in groupby(lines, lambda line: line.startswith("|")) if is_table]
    return [[cells_of(line) for line in run if not SEPARATOR.match(line)] for run in runs]


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def column(page: Path, table_with: str) -> list[str]:
    """The words in backticks in the first column of the table that has this word there."""
    words = [
        [word for row in table for word in re.findall(r"`([^`]+)`", row[0])] for table in tables_of(page)
    ]
    (found,) = [column for column in words if table_with in column]
    return found


def anchors_of(page: Path) -> set[str]:
    """The anchors that headings get where Markdown is shown as pages."""
    titles = [re.sub(r"[^\w\- ]", "", title.lower()) for _, title in headings_of(page)]
    return {title.replace(" ", "-") for title in titles}


def cases(*languages: str) -> list[Any]:
    """Every block of these languages on every page, as test parameters."""
    return [
        pytest.param(content, id=f"{shown(page)}-{number}")
        for page in PAGES
        for number, content in enumerate(blocks_of(page, *languages), start=1)
    ]


# --- two languages of equal rank -------------------------------------------------------------------


def test_each_readme_links_to_the_other_in_its_first_line() -> None:
    first = {page.name: text_of(page).splitlines()[0] for page in READMES}
    assert "(README.zh-CN.md)" in first["README.md"]
    assert "(README.md)" in first["README.zh-CN.md"]


def test_both_readmes_have_the_same_levels_of_headings_in_the_same_order() -> None:
    assert [level for level, _ in headings_of(ENGLISH)] == [level for level, _ in headings_of(CHINESE)]


def test_both_readmes_have_tables_of_the_same_shape() -> None:
    english, chinese = ([[len(row) for row in table] for table in tables_of(page)] for page in READMES)
    assert english == chinese


def test_both_readmes_name_the_same_things_in_their_tables() -> None:
    english, chinese = (
        [sorted(re.findall(r"`([^`]+)`", " ".join(row))) for table in tables_of(page) for row in table]
        for page in READMES
    )
    assert english == chinese


def test_both_readmes_have_equal_code_blocks() -> None:
    assert blocks_of(ENGLISH) == blocks_of(CHINESE)


def test_both_readmes_have_the_same_links() -> None:
    english, chinese = (re.findall(r"\]\((?!#)(.+?)\)", prose_of(page))[1:] for page in READMES)
    assert english == chinese


# --- links, paths and commands ---------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)) if "://" not in link]
    for link in links:
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(r"(?<![\w./-])((?:deploy|tests|requirements|gateway)/[\w./-]+)", text_of(page))
    real = [name for name in named if "NAME" not in name]
    assert [name for name in real if not (ROOT / name.rstrip("./")).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_make_verb_that_a_page_names_is_there(page: Path) -> None:
    named = set(re.findall(r"(?:`|^|&& )make ([a-z][a-z-]*)", text_of(page), re.MULTILINE))
    verbs = set(re.findall(r"^([a-z-]+):.*## ", text_of(ROOT / "Makefile"), re.MULTILINE))
    assert named <= verbs


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_command_that_a_page_names_is_there(page: Path) -> None:
    lines = "\n".join(blocks_of(page, "sh", "bash"))
    named = re.findall(r"^(?:\S*/)?gateway ([a-z]+)", lines, re.MULTILINE)
    named += re.findall(r"`gateway ([a-z]+)", prose_of(page))
    assert set(named) <= set(main.commands)


def test_the_page_for_developers_has_every_make_verb() -> None:
    verbs = set(re.findall(r"^([a-z-]+):.*## ", text_of(ROOT / "Makefile"), re.MULTILINE))
    named = column(ROOT / "docs" / "development.md", "make setup")
    assert {f"make {verb}" for verb in verbs - {"help"}} == {
        word for word in named if word.startswith("make ")
    }


def test_the_architecture_names_every_room() -> None:
    entries = {entry for entry in (ROOT / "gateway").iterdir() if not entry.name.startswith("__")}
    names = {f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries}
    (rooms,) = [block for block in blocks_of(ROOT / "ARCHITECTURE.md", "text") if "gateway/" in block]
    assert [name for name in sorted(names) if f" {name} " not in rooms] == []


def test_the_readme_names_make_test_as_its_test_command() -> None:
    commands = [
        line.partition("#")[0].strip() for block in blocks_of(ENGLISH, "sh") for line in block.splitlines()
    ]
    assert "make test" in commands


# --- tables and snippets ---------------------------------------------------------------------------


@pytest.mark.parametrize("page", [*READMES, ROOT / "docs" / "dialects.md"], ids=shown)
def test_the_table_of_servers_has_every_dialect_and_no_other(page: Path) -> None:
    assert [name for name in column(page, "chatglm-stream") if name in DIALECTS] == list(DIALECTS)


@pytest.mark.parametrize("page", READMES, ids=shown)
def test_the_table_of_parameters_has_every_one_that_can_be_lost(page: Path) -> None:
    assert set(column(page, "seed")) >= NAMES


def smallest() -> str:
    return blocks_of(ENGLISH, "toml")[0]


def test_the_smallest_config_has_fewer_than_ten_lines() -> None:
    assert len(smallest().splitlines()) < 10


@pytest.mark.parametrize("content", cases("toml"))
def test_every_config_that_a_page_prints_is_valid(content: str, tmp_path: Path) -> None:
    """A block without a backend is a fragment: it is checked together with the smallest config."""
    fragment = "backends" not in tomllib.loads(re.sub(r"\$\{\w+(:-(\w*))?\}", r"\2", content))
    for name in re.findall(r'_file = "([\w./-]+)"', content):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"a-secret-in-{Path(name).stem}\n", encoding="utf-8")
    environ = {name: f"secret-{name}" for name in re.findall(r"\$\{(\w+)\}", content)}
    text = content + "\n" + smallest() if fragment else content
    assert parse(text, file="page.toml", folder=tmp_path, environ=environ).backends


@pytest.mark.parametrize("content", cases("python"))
def test_every_python_program_that_a_page_prints_compiles(content: str) -> None:
    assert compile(content, "page.py", "exec").co_names


@pytest.mark.parametrize("content", cases("json"))
def test_every_json_that_a_page_prints_is_json(content: str) -> None:
    assert [json.loads(line) for line in objects_in(content)]


def objects_in(content: str) -> list[str]:
    """One object over several lines, or one on each."""
    return [content] if "\n{" not in content.strip() else content.strip().splitlines()


# --- what is printed is what happens ---------------------------------------------------------------

SIMULATED = {"v1": "chatglm", "gpu-0": "chatglm2", "v3": "chatglm3"}
MODELS = "".join(
    f'[[models]]\nname = "{name}"\nbackends = ["{backend}"]\n'
    for name, backend in (("chatglm-6b", "v1"), ("chatglm2-6b", "gpu-0"), ("chatglm3-6b", "v3"))
)


def options() -> dict[str, Options]:
    return {name: Options(dialect=dialect) for name, dialect in SIMULATED.items()}


@asynccontextmanager
async def demo() -> AsyncIterator[Stack]:
    """A stack with the names of the demo's models."""
    async with stack(options(), MODELS) as one:
        yield one


def curl_in(block: str) -> tuple[str, dict[str, Any]]:
    """The path and the body of a printed curl command."""
    words = shlex.split(block.replace("\\\n", " "))
    (url,) = [word for word in words if word.startswith("http://")]
    return url.removeprefix("http://127.0.0.1:8000"), json.loads(words[words.index("-d") + 1])


def curls() -> list[str]:
    return [block for block in blocks_of(ENGLISH, "sh") if block.startswith("curl") and "-d" in block]


def without_chance(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in {"id", "created"}}


async def test_the_printed_answer_is_the_one_that_comes() -> None:
    path, body = curl_in(curls()[0])
    async with demo() as one, httpx.AsyncClient(base_url=one.url, trust_env=False) as http:
        answer = await http.post(path, json=body)
    printed = json.loads(blocks_of(ENGLISH, "json")[0])
    assert without_chance(answer.json()) == without_chance(printed)
    headers = dict(line.split(": ") for line in blocks_of(ENGLISH, "text")[0].splitlines())
    assert headers.pop("x-gateway-queue-ms").isdecimal()  # the one that a busy machine may change
    assert {name: answer.headers[name] for name in headers} == headers


async def test_the_printed_stream_is_counted_at_its_end() -> None:
    path, body = curl_in(curls()[1])
    async with demo() as one, httpx.AsyncClient(base_url=one.url, trust_env=False) as http:
        stream = (await http.post(path, json=body)).text
    *_, last, done, _ = stream.split("\n\n")
    assert json.loads(last.removeprefix("data: "))["usage"]["total_tokens"] == 40
    assert done == "data: [DONE]"


async def test_the_printed_readiness_is_the_one_that_comes() -> None:
    async with (
        stack("chatglm2") as one,
        httpx.AsyncClient(base_url=one.run.admin_url, trust_env=False) as http,
    ):
        answer = await http.get("/readyz?verbose")
    assert answer.json() == json.loads(blocks_of(ENGLISH, "json")[1])


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def pasted(script: str, folder: Path, ports: dict[int, int]) -> str:
    """Run a printed block in a shell as somebody who pastes it, on other ports; what it printed."""
    for printed, free in ports.items():
        script = script.replace(f":{printed}", f":{free}").replace(f"--port {printed}", f"--port {free}")
    program = f'trap "kill \\$(jobs -p)" EXIT\nset -e\n{script}\n'
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=55,
        cwd=folder,
        env={"PATH": path, "LANG": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    return done.stdout


def test_the_printed_block_that_verifies_works_when_it_is_pasted_whole(tmp_path: Path) -> None:
    (block,) = [one for one in blocks_of(ENGLISH, "sh") if "gateway healthcheck" in one]
    data, admin, server = free_ports(3)
    block = block.replace(
        "gateway check", f"printf '[admin]\\nlisten = \"127.0.0.1:{admin}\"\\n' >> first.toml; gateway check"
    ).replace("gateway init", f"gateway init --listen 127.0.0.1:{data}")
    said = pasted(block, tmp_path, {8001: server, 9000: admin})
    assert "first.toml: ok (1 model, 1 backend)" in said
    assert blocks_of(ENGLISH, "json")[1].strip() in said


JOURNEY = [ROOT / "docs" / name for name in ("from-chatglm-6b.md", "from-chatglm-6b.zh-CN.md")]


def test_both_pages_of_the_first_steps_have_equal_blocks_and_tables() -> None:
    english, chinese = JOURNEY
    assert blocks_of(english) == blocks_of(chinese)
    shapes = [[[len(row) for row in table] for table in tables_of(page)] for page in JOURNEY]
    assert shapes[0] == shapes[1]
    assert [level for level, _ in headings_of(english)] == [level for level, _ in headings_of(chinese)]


@pytest.mark.parametrize("page", JOURNEY, ids=shown)
def test_first_steps_name_every_dialect(page: Path) -> None:
    (table,) = [one for one in tables_of(page) if any("vllm serve" in row[0] for row in one)]
    assert {row[3].strip("`") for row in table[1:]} == set(DIALECTS)


def steps_of(page: Path) -> list[str]:
    """The commands of the first steps after the installation; a block of TOML goes to the end of the file."""
    blocks = re.findall(r"^```(sh|toml)\n(.*?)^```$", text_of(page), re.DOTALL | re.MULTILINE)
    return [
        content if language == "sh" else f"cat >> chatglm.toml <<'END'\n{content}END"
        for language, content in blocks
        if language == "toml" or re.match(r"gateway|curl", content)
    ]


def test_first_steps_lead_to_an_answer_when_they_are_pasted(tmp_path: Path) -> None:
    data, admin, server = free_ports(3)
    script = "\n".join(steps_of(JOURNEY[0])).replace(
        "gateway check",
        f"printf '[admin]\nlisten = \"127.0.0.1:{admin}\"\n' >> chatglm.toml; gateway check",
        1,
    )
    said = pasted(script, tmp_path, {8000: server, 8080: data})
    assert said.count("chatglm.toml: ok (1 model, 1 backend)") == 2
    assert said.count(f"http://127.0.0.1:{admin}/readyz: 200") == 2
    assert "我是模拟的 chatglm-6b" in said
    assert '"id":"gpt-3.5-turbo"' in said


@pytest.mark.parametrize("page", JOURNEY, ids=shown)
def test_every_command_of_the_first_steps_names_the_config_file(page: Path) -> None:
    commands = re.findall(
        r"(?:`|^)(gateway (?:check|serve|init|healthcheck) -[^`\n]*)", text_of(page), re.MULTILINE
    )
    assert len(commands) >= 10
    assert [one for one in commands if not re.search(r"--(config|url) ", one)] == []


def program_with(word: str, url: str) -> str:
    (program,) = [block for block in blocks_of(ENGLISH, "python") if word in block]
    return program.replace("http://127.0.0.1:8000", url)


def output(python: str, program: str) -> str:
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def test_the_printed_program_for_the_sdk_runs() -> None:
    with threaded(options(), MODELS) as one:
        text = output(sys.executable, program_with("from openai", one.url))
    assert text == "你好！我是模拟的 chatglm3-6b。你说的是：“你好，你是谁？”。"


@pytest.mark.clients
@pytest.mark.parametrize(
    ("imported", "model"),
    [
        pytest.param("import ChatGLM3", "chatglm3-6b", id="ChatGLM3"),
        pytest.param("import ChatGLM\n", "chatglm-6b", id="ChatGLM"),
    ],
)
def test_the_printed_programs_for_langchain_run(imported: str, model: str) -> None:
    python = python_of("langchain")
    with threaded(options(), MODELS) as one:
        text = output(python, program_with(imported, one.url))
    assert text.startswith(f"你好！我是模拟的 {model}。你说的是：“北京和上海两座城市有什么不同？”。")
