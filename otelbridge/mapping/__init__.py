"""What it means: mapping files, the language they are written in, and the rules they are compiled to."""

from otelbridge.mapping.compile import File, compile_mappings
from otelbridge.mapping.load import files_with_shipped, load_with_shipped, shipped_files, shipped_folder, user_files
from otelbridge.mapping.rules import Mapping, MappingTest

__all__ = [
    "File", "Mapping", "MappingTest", "compile_mappings", "files_with_shipped", "load_with_shipped", "shipped_files",
    "shipped_folder", "user_files",
]  # fmt: skip
