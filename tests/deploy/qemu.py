"""Two real QEMU processes on loopback, and a migration from one to the other."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.pki import Authority
from tests.service.running import OTELBRIDGE, environment, until

QEMU = "qemu-system-x86_64"
MEMORY_MIB = 24
COUNTER = 0x100000
"""Address in the guest of the first number that it counts up, once a round over its pages."""
PAGES_END = 20 << 20
LOW_BYTES_S, HIGH_BYTES_S = 30_000_000, 1_000_000_000
"""`max-bandwidth`: half a second for one pass over the pages, and no limit that loopback would feel."""
DOWNTIME_MS, HIGH_DOWNTIME_MS = 5, 2000
"""`downtime-limit`: at first too little for all pages, so that there are several passes."""
PASSES = 3
BOOT_S, MIGRATION_S, ANSWER_S = 60.0, 60.0, 30.0

GUEST = bytes.fromhex(
    "fa 31c0 8ed8"  # 7c00: cli; xor ax,ax; mov ds,ax
    " e492 0c02 e692"  # in al,0x92; or al,2; out 0x92,al: the address line 20 on
    " 0f0116407c"  # lgdt [0x7c40]
    " 0f20c0 0c01 0f22c0"  # mov eax,cr0; or al,1; mov cr0,eax: protected mode
    " bb0800 8ec3"  # mov bx,8; mov es,bx: the segment below, of 4 GiB
    " 24fe 0f22c0"  # and al,0xfe; mov cr0,eax: back, and ES reaches everything all the same
    f" 66bf{COUNTER.to_bytes(4, 'little').hex()}"  # 7c22: mov edi,COUNTER
    " 266766ff07"  # 7c28: inc dword [es:edi]
    " 6681c700100000"  # add edi,4096
    f" 6681ff{PAGES_END.to_bytes(4, 'little').hex()}"  # cmp edi,PAGES_END
    " 72eb"  # jb 7c28
    " ebe3"  # jmp 7c22
)
"""A boot sector that writes to every page, round after round."""
SEGMENTS = bytes.fromhex("0f00 487c0000 00000000000000000000ffff0000 00 92 cf 00")  # at 7c40: the table's place, the table


class Kind(NamedTuple):
    """How a machine migrates."""

    mode: str
    is_tls: bool

    def __str__(self) -> str:
        return f"{self.mode}-{'tls' if self.is_tls else 'plain'}"


class QemuError(Exception):
    """What QEMU answered to a command that it did not take, and what it said on standard error."""


class Machine:
    """A QEMU process, by its monitor.

    Attributes:
        monitor: Its QMP, after the greeting.
        lines: What QMP says, line by line.
    """

    def __init__(self, monitor: socket.socket) -> None:
        self.monitor, self.lines = monitor, monitor.makefile("rb")
        next(self.lines, None)
        self.ask("qmp_capabilities")

    def ask(self, command: str, /, **arguments: Any) -> Any:
        """The answer to a QMP command.

        Raises:
            QemuError: With QEMU's words, when it refuses.
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self.monitor.sendall(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
        for line in self.lines:
            said = json.loads(line)
            if "error" in said:
                raise QemuError(f"{command}: {said['error']['desc']}")
            if "return" in said:
                return said["return"]
        raise QemuError(f"{command}: QEMU closed its monitor")

    def can(self, *capabilities: str) -> None:
        """Switch these capabilities of migration on."""
        self.ask("migrate-set-capabilities", capabilities=[{"capability": name, "state": True} for name in capabilities])

    def rounds(self) -> int:
        """How often the guest has been over its pages."""
        said = self.ask("human-monitor-command", command_line=f"xp /1wx {COUNTER:#x}")
        return int(said.split()[-1], 16)

    def migration(self) -> dict[str, Any]:
        """What `query-migrate` says."""
        return dict(self.ask("query-migrate"))

    def passes(self) -> int:
        """How many passes over memory have begun."""
        return int(self.migration().get("ram", {}).get("dirty-sync-count", 0))

    def has_ended(self) -> bool:
        """Whether the migration is over, however."""
        return self.migration().get("status") in ("completed", "failed", "cancelled")


def events_file(folder: Path) -> Path:
    """The events that the guide for plain QEMU switches on."""
    path = folder / "migration.events"
    if not path.exists():
        command = [*OTELBRIDGE, "mapping", "events", "--qemu-version", "7.2"]
        path.write_bytes(subprocess.run(command, capture_output=True, check=True, env=environment()).stdout)
    return path


def boot_disk(folder: Path) -> Path:
    """A floppy with the guest on it."""
    path = folder / "guest.img"
    path.write_bytes((GUEST.ljust(0x40, b"\0") + SEGMENTS).ljust(510, b"\0") + b"\x55\xaa" + bytes(1440 * 1024 - 512))
    return path


def certificates(folder: Path) -> Path:
    """A folder as `tls-creds-x509` wants it."""
    made = folder / "tls"
    made.mkdir()
    authority = Authority.make(made, "ca")
    authority.path.rename(made / "ca-cert.pem")
    for side in ("server", "client"):
        cert, key = authority.issue(side, "localhost", "127.0.0.1")
        cert.rename(made / f"{side}-cert.pem")
        key.rename(made / f"{side}-key.pem")
    return made


@contextmanager
def machine(folder: Path, name: str, log: Path, *arguments: str, is_traced: bool = True) -> Iterator[Machine]:
    """A QEMU that traces into a log, from its start or when told to; the guest's processor is emulated, so it runs anywhere."""
    ours, theirs = socket.socketpair()
    said = folder / f"{name}.stderr"
    command = [
        QEMU, "-name", name, "-machine", "pc", "-accel", "tcg", "-cpu", "qemu64", "-m", str(MEMORY_MIB),
        "-nodefaults", "-no-user-config", "-display", "none", "-boot", "order=a",
        "-drive", f"if=floppy,format=raw,readonly=on,file={boot_disk(folder)}",
        "-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control",
        "-D", str(log), "-msg", "timestamp=on", *(("-trace", f"events={events_file(folder)}") if is_traced else ()), *arguments,
    ]  # fmt: skip
    with ours, said.open("wb") as output:
        ours.settimeout(ANSWER_S)
        with theirs:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=[theirs.fileno()]
            )
        try:
            yield Machine(ours)
        except (OSError, QemuError) as error:
            error.add_note(said.read_text())
            raise
        finally:
            process.kill()
            process.wait()


class Told(NamedTuple):
    """What QMP tells of a migration on its source: `total-time`, `downtime`, `dirty-sync-count` and `postcopy-requests`."""

    total_ms: int
    downtime_ms: int
    passes: int
    requests: int


@contextmanager
def migrated(folder: Path, kind: Kind, source_log: Path, destination_log: Path) -> Iterator[Told]:
    """A migration of such a kind that is over, with both QEMU processes still there; the second one runs the guest."""
    folder.mkdir()
    server = client = ()
    if kind.is_tls:
        made = certificates(folder)
        server, client = (
            ("-object", f"tls-creds-x509,id=tls,dir={made},endpoint={end},verify-peer=on") for end in ("server", "client")
        )
    with (
        machine(folder, "source", source_log, *client) as source,
        machine(folder, "destination", destination_log, "-incoming", "defer", *server) as destination,
    ):
        until(lambda: source.rounds() > 0, BOOT_S)
        source.ask("migrate-set-parameters", max_bandwidth=LOW_BYTES_S, downtime_limit=DOWNTIME_MS)
        if kind.is_tls:
            source.ask("migrate-set-parameters", tls_creds="tls", tls_hostname="localhost")
            destination.ask("migrate-set-parameters", tls_creds="tls")
        if kind.mode == "postcopy":
            source.can("postcopy-ram")
            destination.can("postcopy-ram")
        destination.ask("migrate-incoming", uri="tcp:127.0.0.1:0")
        (address,) = destination.migration()["socket-address"]
        source.ask("migrate", uri=f"tcp:{address['host']}:{address['port']}")
        until(lambda: source.has_ended() or source.passes() >= PASSES, MIGRATION_S)
        if kind.mode == "postcopy":
            source.ask("migrate-start-postcopy")
        else:
            source.ask("migrate-set-parameters", max_bandwidth=HIGH_BYTES_S, downtime_limit=HIGH_DOWNTIME_MS)
        until(lambda: source.has_ended() and destination.has_ended(), MIGRATION_S)
        told = source.migration()
        assert told["status"] == destination.migration()["status"] == "completed", told
        before = destination.rounds()
        until(lambda: destination.rounds() > before, BOOT_S)
        yield Told(told["total-time"], told["downtime"], told["ram"]["dirty-sync-count"], told["ram"]["postcopy-requests"])
