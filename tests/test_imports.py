"""Imports run one way: what a room may import, checked in the source of every module."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "otelbridge"

_GROUND = {"records", "errors", "stats", "durations", "sizes"}
_CORE = _GROUND | {"catalogue", "readers", "mapping", "engine"}
_PIPELINE = _CORE | {"otlp", "view", "report", "pipeline"}
MAY_IMPORT = {
    "__init__": set[str](),
    "records": _GROUND,
    "errors": _GROUND,
    "stats": _GROUND,
    "durations": _GROUND,
    "sizes": _GROUND,
    "catalogue": _GROUND,
    "readers": _GROUND | {"catalogue"},
    "mapping": _GROUND | {"catalogue"},
    "engine": _GROUND | {"mapping"},
    "otlp": _GROUND,
    "probes": _GROUND | {"catalogue", "mapping"},
    "view": {"records", "otlp"},
    "report": _CORE,
    "pipeline": _PIPELINE,
    "explain": _PIPELINE,
    "service": _PIPELINE,
    "doctor": _PIPELINE | {"probes", "service"},
    "cli": _PIPELINE | {"explain", "probes", "service", "doctor"},
    "__main__": {"cli"},
}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def room_of(module: Path) -> str:
    """`readers` for readers/log.py, `pipeline` for pipeline.py."""
    return module.parts[0] if len(module.parts) > 1 else module.stem


def imported_names(module: Path) -> set[str]:
    """The full names of everything that a module imports, wherever in it the import stands."""
    tree = ast.parse(PACKAGE.joinpath(module).read_text("utf-8"))
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # Relative imports would hide the room; ruff's TID refuses most of them, this refuses all.
            assert node.level == 0, f"{module}:{node.lineno} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported_modules(module: Path) -> set[str]:
    """The names below `otelbridge` that a module imports: `mapping.rules.Mapping`."""
    return {name.removeprefix("otelbridge.") for name in imported_names(module) if name.startswith("otelbridge.")}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_room_imports_only_rooms_below_it(module: Path) -> None:
    room = room_of(module)
    rooms = {name.split(".")[0] for name in imported_modules(module)} - {room, "__version__"}
    assert rooms <= MAY_IMPORT[room], f"{module} imports from {sorted(rooms - MAY_IMPORT[room])}"


def test_the_engine_knows_of_mappings_only_their_rules() -> None:
    names = {name for module in MODULES if room_of(module) == "engine" for name in imported_modules(module)}
    from_mapping = {".".join(name.split(".")[:2]) for name in names if name.startswith("mapping")}
    assert from_mapping == {"mapping.rules"}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_only_the_delivery_and_the_pipeline_know_what_sends(module: Path) -> None:
    """The SDK, gRPC and requests cost a second to import: they stay behind otlp."""
    heavy = {name.split(".")[0] for name in imported_names(module)} & {
        "opentelemetry", "grpc", "requests", "google", "prometheus_client",
    }  # fmt: skip
    assert not heavy or room_of(module) == "otlp"
