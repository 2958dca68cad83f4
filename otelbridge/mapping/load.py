"""Mapping files from where they lie: those that ship with otelbridge, and the user's own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from otelbridge.catalogue import Catalogue
from otelbridge.errors import MappingError, UsageError
from otelbridge.mapping.compile import File, compile_mappings
from otelbridge.mapping.rules import Mapping
from otelbridge.mapping.source import read_text

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped_folder() -> Path:
    """The folder of the shipped mappings: inside the installed package, or beside it in a checkout."""
    inside = _PACKAGE / "mappings"
    return inside if inside.is_dir() else _PACKAGE.parent / "mappings"


def shipped_files(*, with_tests: bool = False) -> list[File]:
    """The mappings that ship with otelbridge; their `tests:`, the last and longest section, only if they are asked for."""
    texts = [(path.name, path.read_text("utf-8")) for path in sorted(shipped_folder().glob("*.yaml"))]
    return [File(name, text if with_tests else text.partition("\ntests:\n")[0], shipped=True) for name, text in texts]


def user_files(paths: Iterable[Path]) -> list[File]:
    """The user's mapping files; a folder stands for all `.yaml` and `.yml` files in it.

    Raises:
        UsageError: A file does not exist or cannot be read.
        MappingError: A file is no text.
    """
    found: list[File] = []
    for path in paths:
        found += [_read(one) for one in (_inside(path) if path.is_dir() else [path])]
    return found


def _inside(folder: Path) -> list[Path]:
    try:
        inside = sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml"))
    except OSError as error:
        raise UsageError(f"The folder '{folder}' cannot be read: {error.strerror or error}.") from None
    if not inside:
        raise UsageError(f"The folder '{folder}' has no .yaml file in it; name a mapping file.")
    return inside


def load_with_shipped(paths: Iterable[Path], catalogue: Catalogue) -> Mapping:
    """The shipped mappings and the user's; a rule of the user takes the place of the shipped one of the same name.

    Raises:
        UsageError: A file cannot be read.
        MappingError: Files have problems; all of them.
    """
    return compile_mappings(files_with_shipped(paths), catalogue)


def files_with_shipped(paths: Iterable[Path]) -> list[File]:
    """The user's mapping files and those that ship.

    Raises:
        UsageError: A file cannot be read.
        MappingError: A file is no text.
    """
    return [*user_files(paths), *shipped_files()]


def _read(path: Path) -> File:
    text = read_text(path, "The mapping", MappingError)
    return File(str(path), text, shipped=path.resolve().parent == shipped_folder())
