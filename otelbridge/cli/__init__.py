"""The command line: the only room that prints or exits."""

from __future__ import annotations

import errno
import gc
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

import otelbridge
from otelbridge.cli.terminal import complain, flush, mute
from otelbridge.errors import ExportError, LocatedError, OtelbridgeError, UsageError

_INTERRUPTED = 130
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What is wrong when standard output or a temporary file takes no more."""

_MAIN_EXAMPLES = """
\b
Examples:
  otelbridge convert src.log dst.log       print one migration, both hosts, as a waterfall
  otelbridge run --config otelbridge.yaml  follow logs as they grow, as a service
  otelbridge doctor                        what stands between this machine's logs and spans
  otelbridge mapping check my.yaml         every problem of a mapping, with its place
  otelbridge mapping events                which events to switch on in QEMU
  otelbridge catalogue check FILE          whether the rules work with that QEMU
  otelbridge probes stap --binary PATH     a script for QEMU's USDT probes
  otelbridge spool replay DIR              send what could not be delivered

\b
Shell completion (bash; zsh and fish alike):
  eval "$(_OTELBRIDGE_COMPLETE=bash_source otelbridge)"
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the code of the contract."""
    gc.disable()  # until everything is loaded: nothing of that is garbage
    try:
        code = cli.main(args=None if arguments is None else list(arguments), prog_name="otelbridge", standalone_mode=False)
        flush()
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        context: click.Context | None = getattr(error, "ctx", None)
        where = f" (see '{context.command_path} --help')" if context is not None else ""
        complain(f"{error.format_message()}{where}")
        code = UsageError.exit_code
    except OtelbridgeError as error:
        complain(str(error), located=isinstance(error, LocatedError))
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        # CPython kills itself by the signal, code or not, when it came while a string was executed, as named tuples are.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        complain("interrupted; what was not yet delivered is not.")
        code = _INTERRUPTED
    except SystemExit as stop:
        # Shell completion ends so, and click when the reader of our output has gone, as `head` does.
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
        code = 0
    except BrokenPipeError:
        mute()
        code = 0
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        mute()
        complain(f"Not all could be written: {error.strerror}. Make room and run it again.")
        code = ExportError.exit_code
    gc.freeze()  # the process ends: nothing of it need be looked at again
    sys.exit(code or 0)


_COMMANDS = {
    "catalogue": "catalogue_group",
    "convert": "convert_command",
    "doctor": "doctor_command",
    "mapping": "mapping_group",
    "probes": "probes_command",
    "run": "run_command",
    "spool": "spool_group",
}
"""What each command is called in the module of its name."""


class _Commands(click.Group):
    """Loads the module of a command when the command is asked for: a conversion does not wait for the others."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        found: click.Command = getattr(import_module(f"otelbridge.cli.{name}"), _COMMANDS[name])
        return found


@click.group(
    cls=_Commands, epilog=_MAIN_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(otelbridge.__version__, prog_name="otelbridge")
def cli() -> None:
    """Turn QEMU's trace events of live migrations into OpenTelemetry spans and metrics."""
