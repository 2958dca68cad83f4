"""The preflight: what a machine is like, gathered, and what is to be said of it. It changes nothing and sends nothing."""

from otelbridge.doctor.examine import Examined, examine
from otelbridge.doctor.findings import Finding

__all__ = ["Examined", "Finding", "examine"]
