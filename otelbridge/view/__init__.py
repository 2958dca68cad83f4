"""The terminal waterfall: a sink that keeps what a person wants to see of a migration, and its drawing."""

from otelbridge.view.picture import Picture
from otelbridge.view.waterfall import draw

__all__ = ["Picture", "draw"]
