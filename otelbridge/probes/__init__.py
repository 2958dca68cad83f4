"""Scripts for bpftrace and SystemTap that print the USDT probes of a QEMU in the lines that `--format stap` reads."""

from otelbridge.probes.chosen import Probe, choose
from otelbridge.probes.notes import NotesError, sdt_probes
from otelbridge.probes.scripts import SCRIPTS

__all__ = ["SCRIPTS", "NotesError", "Probe", "choose", "sdt_probes"]
