"""Where things lie in the repository, and what may not stand anywhere in it."""

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).resolve()

ALLOWED = {
    "pyproject.toml",
    "Makefile",
    "CHANGELOG.md",
    "ARCHITECTURE.md",
    "README.md",
    "README.zh-CN.md",
    "LICENSE",
    "Dockerfile",
    "config.toml",
    "docs",
    "requirements",
    "deploy",
    "tests",
    "gateway",
}
"""What the top level may hold besides names that begin with a dot."""

UNTESTED = {
    "__main__.py": "two lines that call the command line; tests/unit/test_main.py runs them",
}
"""Files without a test file of their own name, and why."""

# Put together, so that this file does not hold what it forbids.
FORBIDDEN = {
    "a path of somebody's machine": re.compile(r"/(?:root|work)/|/tmp/" + "team"),
    "the address of a package index": re.compile("pypi" + r"\.org|index" + "-url"),
    "a banned package": re.compile("lite" + "llm", re.IGNORECASE),
}
MAY_HOLD = {
    ("tests/guards/test_supply_chain.py", "the address of a package index"),  # looks for it
    ("tests/guards/test_supply_chain.py", "a banned package"),  # bans it
}

BINARY = {".png", ".gz", ".whl", ".gguf"}


def ignored_names() -> set[str]:
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    return {".git", *(line.strip("/") for line in lines if "*" not in line)}


def is_ours(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return ignored_names().isdisjoint(parts) and not any(part.endswith(".egg-info") for part in parts)


def files(start: Path = ROOT) -> Iterator[Path]:
    """Every file of the repository below `start`."""
    skipped = ignored_names()
    for entry in sorted(start.iterdir()):
        if entry.name in skipped or entry.name.endswith(".egg-info"):
            continue
        if entry.is_dir():
            yield from files(entry)
        else:
            yield entry


MODULES = [path for path in files(ROOT / "gateway") if path.suffix == ".py"]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def inside(path: Path) -> str:
    return path.relative_to(ROOT / "gateway").as_posix()


# --- where things lie ------------------------------------------------------------------------------


def test_the_top_level_holds_what_belongs_there_and_nothing_else() -> None:
    found = {entry.name for entry in ROOT.iterdir() if is_ours(entry) and not entry.name.startswith(".")}
    assert found == ALLOWED


@pytest.mark.parametrize("module", MODULES, ids=inside)
def test_every_module_has_a_test_of_its_name_or_a_reason(module: Path) -> None:
    place = module.relative_to(ROOT / "gateway")
    test = ROOT / "tests" / "unit" / place.with_name(f"test_{module.name}")
    excused = module.name == "__init__.py" or inside(module) in UNTESTED
    assert test.exists() != excused, f"{named(test)} is missing, or its excuse is stale"


def test_every_excuse_is_for_a_module_that_exists() -> None:
    assert set(UNTESTED) <= {inside(module) for module in MODULES}


@pytest.mark.parametrize("test", sorted((ROOT / "tests" / "unit").rglob("test_*.py")), ids=named)
def test_every_unit_test_is_for_a_module_that_exists(test: Path) -> None:
    place = test.relative_to(ROOT / "tests" / "unit")
    module = ROOT / "gateway" / place.with_name(test.name.removeprefix("test_"))
    assert module.exists() or (module.with_name("__main__.py").exists() and test.name == "test_main.py")


@pytest.mark.parametrize("module", MODULES, ids=inside)
def test_every_module_says_what_it_is_for(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))


ROOMS = sorted({module.parent for module in MODULES} - {ROOT / "gateway"})


@pytest.mark.parametrize("room", ROOMS, ids=inside)
def test_every_room_names_its_members_and_its_rule(room: Path) -> None:
    told = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
    members = {
        entry.stem
        for entry in room.iterdir()
        if not entry.name.startswith("__") and (entry.suffix == ".py" or (entry / "__init__.py").exists())
    }
    assert [member for member in sorted(members) if f"`{member}`" not in told] == []
    assert "Rule: " in told


def test_no_class_name_is_defined_twice() -> None:
    places: dict[str, list[str]] = {}
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(inside(module))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize("module", MODULES, ids=inside)
def test_public_classes_and_functions_say_what_they_do(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    public = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_"
    ]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


ELSEWHERE = {"Host", "SamplingParams", "ErrorResponse", "LISTEN_FDS"}
"""Names in backticks that are not ours: of a header, of other programs, of the environment."""


def test_every_class_that_a_docstring_or_comment_names_exists() -> None:
    known: set[str] = set(ELSEWHERE)
    told: dict[str, set[str]] = {}
    for module in MODULES:
        with module.open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                if token.type == tokenize.NAME:
                    known.add(token.string)
                elif token.type in (tokenize.STRING, tokenize.COMMENT):
                    names = re.findall(r"`(_?[A-Z]\w*)(?:\.\w+)*`", token.string)
                    told.setdefault(inside(module), set()).update(names)
    assert {where: names - known for where, names in told.items() if names - known} == {}


def test_no_module_knows_a_library_for_tests() -> None:
    assert holding(r"\b(?:respx|pytest|hypothesis|unittest|MockTransport)\b") == set()


# --- what may not stand there ----------------------------------------------------------------------


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what: str) -> None:
    holders = [
        named(path)
        for path in files()
        if path.suffix not in BINARY
        and FORBIDDEN[what].search(path.read_text(encoding="utf-8", errors="replace"))
        and (named(path), what) not in MAY_HOLD
    ]
    assert holders == []


def code_of(module: Path) -> str:
    """The module as its syntax tree writes it: without comments, and without docstrings."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(...)
    return ast.unparse(tree)


def calls_of(module: Path) -> set[str]:
    """The names of what the module calls, as written."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def calling(*names: str) -> set[str]:
    return {inside(module) for module in MODULES if calls_of(module) & set(names)}


def holding(pattern: str) -> set[str]:
    return {inside(module) for module in MODULES if re.search(pattern, code_of(module))}


def test_only_what_speaks_to_people_prints() -> None:
    assert calling("print", "click.echo") <= {"cli/main.py", "cli/demo.py", "config/reference.py"}


def test_the_wall_clock_is_read_in_named_places_only() -> None:
    """Everything else gets its time as an argument; the simulator imitates programs that read it."""
    readers = calling("time.time", "datetime.now", "datetime.utcnow", "datetime.today", "date.today")
    assert readers == {"simulator/program.py", "simulator/dialects/chatglm.py"}
    assert holding(r"\btime\.time\b") <= readers | {"compose.py", "telemetry/logs/events.py"}


def test_the_monotonic_clock_is_read_in_named_places_only() -> None:
    assert holding(r"\btime\.(?:monotonic|perf_counter)\b") <= {"compose.py", "cli/main.py"}


def test_certificates_are_always_verified() -> None:
    assert holding(r"verify\s*=\s*False|CERT_NONE|check_hostname\s*=\s*False|_create_unverified") == set()


def test_paths_are_read_from_the_scope_and_not_from_an_url_made_of_headers() -> None:
    assert holding(r"\.url\.path\b") == set()


def test_no_middleware_is_starlettes_base_class() -> None:
    assert holding(r"\bBaseHTTPMiddleware\b") == set()


def test_text_of_models_is_never_run() -> None:
    assert calling("eval", "exec", "compile", "pickle.loads", "os.system", "subprocess.run") == set()


def test_no_task_is_left_to_itself() -> None:
    assert calling("asyncio.create_task") == set()
