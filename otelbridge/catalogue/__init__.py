"""What exists: QEMU's trace events, their arguments in every version, and how to read their text."""

from otelbridge.catalogue.catalogue import Catalogue, builtin, catalogue_from
from otelbridge.catalogue.decoder import TextDecoder
from otelbridge.catalogue.versions import VERSIONS, resolve_version

__all__ = ["VERSIONS", "Catalogue", "TextDecoder", "builtin", "catalogue_from", "resolve_version"]
