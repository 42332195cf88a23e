"""The layers of the package: a module imports only from the rows below its own."""

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "kernel_agent"

ROWS = [
    {"__main__"},
    {"cli"},
    {"checks", "console", "diff_page", "diff_view", "doctor", "replay_view"},
    {"differences", "junit", "providers", "rendering", "region"},
    {"exporting", "listing", "recorded", "telemetry"},
    {"settings"},
    {"mcp_server", "papermill_engine", "replay", "resuming"},
    {"agent", "managed_kernel", "rewriting"},
    {"beginning"},
    {"loop", "opening"},
    {"executing"},
    {"requests"},
    {"approving", "asking", "catching_up", "keeping", "subagents", "user_notebook"},
    {"ending", "making_room", "planning", "rebuilding", "stored_state", "tool_use"},
    {"repeating"},
    {"call_record"},
    {"adapters", "built_in_tools"},
    {"mcp_client", "web_tools"},
    {"tools"},
    {"kernel", "model", "transcript", "testing", "transformers_model"} | {"data", "media"},
    {"answers", "arrow_files", "closing", "looping"},
    {"answer_types", "call_files", "literals"},
    {"border", "chat_text", "comparing", "limits", "model_errors", "model_loading"}
    | {"observation", "prompts", "reply", "telling"},
    {"native_calls", "model_error_words"},
    {"drafts", "estimates"},
    {"blocks", "context", "events", "page_fetching", "tracebacks"},
    {"calls"},
    {"model_secrets", "pictures", "syntax", "terminal"},
    {"steps", "errors", "shipped", "ctrl_c"},
]

ONLY_IN = {
    "rich": {"cli", "console", "diff_view", "rendering", "region", "replay_view"},
    "typer": {"cli"},
    "litellm": {"model", "model_errors", "model_loading"},
    "openai": {"model_errors", "model_loading"},
    "httpx": {"model", "model_errors", "page_fetching"},
    "mcp": {"mcp_client", "mcp_server"},
    "docstring_parser": {"tools"},
    "nbformat": {"papermill_engine", "transcript"},
    "jupyter_client": {"kernel"},
    "zmq": {"kernel"},
    "jinja2": {"chat_text", "prompts", "transformers_model"},
    "nbconvert": {"exporting"},
    "opentelemetry": {"telemetry"},
    "torch": {"transformers_model"},
    "transformers": {"transformers_model"},
    "papermill": {"papermill_engine"},
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).with_suffix("").parts, path


def part(parts):
    """The name by which a module stands in a row: its own, or its folder's."""
    return parts[0]


@cache
def imports(path):
    """Every module that a file imports, wherever in it: at its top, late, or for types only."""
    return tuple(imported(path))


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            if node.module == "kernel_agent":
                yield from (f"kernel_agent.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node):
            words = (word.value for word in ast.walk(node) if isinstance(word, ast.Constant))
            yield from (word for word in words if isinstance(word, str))


def row_of(name):
    return next((number for number, row in enumerate(ROWS) if name in row), None)


ALL = [(parts, path) for parts, path in modules() if parts != ("__init__",)]


@pytest.mark.parametrize(("parts", "path"), ALL, ids=["/".join(parts) for parts, _ in ALL])
def test_a_module_has_a_row_and_imports_only_from_the_rows_below(parts, path):
    own = row_of(part(parts))
    assert own is not None, f"{'/'.join(parts)} stands in no row"
    for name in imports(path):
        package, *rest = name.split(".")
        if package != "kernel_agent" or not rest:
            continue
        other = rest[0]
        if other == part(parts) or other == "__version__":
            continue
        assert row_of(other) is not None, f"{name} stands in no row"
        assert row_of(other) > own, f"{'/'.join(parts)} imports {name}: not a row below"


@pytest.mark.parametrize(("library", "allowed"), ONLY_IN.items(), ids=list(ONLY_IN))
def test_a_library_is_imported_only_where_it_belongs(library, allowed):
    users = {
        part(parts)
        for parts, path in ALL
        for name in imports(path)
        if name.split(".")[0] == library
    }
    assert users <= allowed


def test_every_row_names_modules_that_exist():
    there = {part(parts) for parts, _ in ALL}
    assert set().union(*ROWS) == there


def test_no_module_makes_a_circle_inside_a_folder():
    for folder in (p for p in PACKAGE.iterdir() if p.is_dir() and (p / "__init__.py").exists()):
        name = f"kernel_agent.{folder.name}."
        graph = {
            path.stem: {n.removeprefix(name) for n in imports(path) if n.startswith(name)}
            for path in folder.glob("*.py")
            if path.stem != "__init__"
        }
        done: set[str] = set()
        while graph:
            free = {module for module, needs in graph.items() if needs <= done}
            assert free, f"a circle among {sorted(graph)} in {folder.name}/"
            done |= free
            graph = {module: needs for module, needs in graph.items() if module not in free}
