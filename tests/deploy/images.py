"""What the tests of the image share: its bases, its wheels, how it is built, how it is run and in which network."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from typing import Any, NamedTuple, Self

PROJECT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otelbridge" / "bases"
"""Outside of the checkout; what lies there may be deleted at any time."""
STALE_S = 7 * 86_400
MEMORY = Path("/dev/shm")  # noqa: S108  # the folder below it has a name of its own
ROOM_BYTES = 2_000_000_000
SUITE = "bookworm"
REVISION = "4b825dc"
PYTHON = (3, 11)
"""That of the suite, which the wheels are for."""

# As the public slim image: no documentation.
_SLIM = 'rm -rf "$1/usr/share/doc" "$1/usr/share/man" "$1/usr/share/locale"'
_PYTHON = "python3-minimal,libpython3-stdlib,libstdc++6"
BASES = {
    "run": ("--variant=extract", f"--extract-hook={_SLIM}", f"--include={_PYTHON}"),
    "build": ("--variant=extract", f"--include={_PYTHON},python3-pip,dash,coreutils,tini"),
    "host": ("--variant=essential", f"--include={_PYTHON},systemd,procps"),
}
"""How each base is made: those of the image's two stages, and a host that systemd runs."""

HARDENED = (
    "--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--pids-limit=64",
)  # fmt: skip
"""How Kubernetes runs it by the restricted Pod Security Standard, and more: nothing but a volume can be written to."""

# Else podman asks for more open files than it may have; and no timers of systemd.
_HERE = ("--rm", "--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096", "--no-healthcheck")

_CLONE_NEWNET = 0x4000_0000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_INTERFACE = struct.Struct("16sh14x")


def run(*command: str | Path, cwd: Path | None = None, **env: str) -> str:
    """What a program prints; the test fails with what it complains of."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env={**os.environ, **env}, stdin=subprocess.DEVNULL, capture_output=True,
        encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}: {done.stderr[-3000:]}"
    return done.stdout


def base(name: str) -> Path:
    """The archive of a base's files, at most a week old."""
    command = ["mmdebstrap", "--quiet", *BASES[name], SUITE]
    path = CACHE / f"{name}-{hashlib.sha256(' '.join(command).encode()).hexdigest()[:16]}.tar"
    if not path.exists() or time.time() - path.stat().st_mtime > STALE_S:
        CACHE.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}.tar")
        run("nice", *command, new)
        new.rename(path)
    return path


def own_wheel(folder: Path) -> None:
    """The project's own wheel; hatchling stamps it with a fixed time."""
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ".", cwd=PROJECT)


@dataclass(frozen=True)
class Image:
    """An image in a store.

    Attributes:
        id: The digest of its configuration in Docker's form, where buildah puts the name of a container that is no more.
        digest: The digest of its manifest in OCI's form, by which it is pulled.
        layer_bytes: The sizes of its layers as they are pulled.
    """

    id: str
    digest: str
    layer_bytes: tuple[int, ...]


def store_folder() -> Path:
    """An empty folder; in memory if there is room, for it gets 20,000 files that a disk may take half a minute to delete."""
    has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM_BYTES
    return Path(tempfile.mkdtemp(prefix="image-", dir=MEMORY if has_room else None))


class Store:
    """Images and containers of these tests alone, in a folder that is theirs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._where = [f"--root={folder / 'store'}", f"--runroot={folder / 'run'}", "--storage-driver=overlay"]
        for name in ("run", "build"):
            self.add_base(name)

    def buildah(self, *words: str | Path) -> str:
        """What buildah prints."""
        return run("nice", "buildah", *self._where, *words).strip()

    def podman(self, *words: str | Path) -> list[str]:
        """The command of podman; crun, which it would take, knows no hybrid hierarchy of control groups."""
        return ["podman", *self._where, "--runtime=runc", *map(str, words)]

    def add_base(self, name: str) -> None:
        """Have a base as `localhost/base-NAME`."""
        container = self.buildah("from", "scratch")
        self.buildah("add", "-q", container, base(name), "/")
        self.buildah("commit", "-q", "--timestamp=0", container, f"localhost/base-{name}")
        self.buildah("rm", container)

    def build(self, wheels: Path, revision: str) -> Image:
        """Build the image as a user does, in a copy of what the sources' folder holds for it."""
        with tempfile.TemporaryDirectory() as name:
            context = Path(name)
            dockerfile = context / "deploy/image/Dockerfile"
            shutil.copytree(PROJECT / "deploy/image", dockerfile.parent)
            shutil.copytree(wheels, context / "wheels", copy_function=shutil.copyfile)
            given = [f"--build-arg={stage.upper()}_IMAGE=localhost/base-{stage}" for stage in ("run", "build")]
            given += [f"--build-arg=REVISION={revision}", f"--iidfile={context / 'id'}", f"--file={dockerfile}"]
            form = ("--no-cache", "--isolation=chroot", "--format=docker", "--timestamp=0")
            self.buildah("bud", "-q", *form, *given, context)
            image_id = (context / "id").read_text().strip().removeprefix("sha256:")
            self.buildah("push", "-q", "--format=oci", image_id, f"dir:{context / 'pushed'}")
            manifest = (context / "pushed/manifest.json").read_bytes()
        layers = tuple(int(layer["size"]) for layer in json.loads(manifest)["layers"])
        return Image(image_id, hashlib.sha256(manifest).hexdigest(), layers)

    def add_host(self, image: Image) -> str:
        """The name of an image of a host with systemd, and otelbridge where the image has it."""
        self.add_base("host")
        container = self.buildah("from", "localhost/base-host")
        self.buildah("add", "-q", f"--from={image.id}", container, "/opt/otelbridge", "/opt/otelbridge")
        self.buildah("config", "--cmd=/lib/systemd/systemd", "--stop-signal=SIGRTMIN+3", container)
        self.buildah("commit", "-q", container, "localhost/host")
        self.buildah("rm", container)
        return "localhost/host"

    def inspect(self, image: Image) -> dict[str, Any]:
        """What the image says of itself."""
        return dict(json.loads(run(*self.podman("image", "inspect", image.id)))[0])

    @contextmanager
    def files(self, image: Image) -> Iterator[Path]:
        """The image's files, as a folder."""
        folder = Path(run(*self.podman("image", "mount", image.id)).strip())
        try:
            yield folder
        finally:
            run(*self.podman("image", "unmount", image.id))

    def command(self, image: Image, *arguments: str, options: Sequence[str] = (), network: str = "none") -> list[str]:
        """What runs it hardened, with no network but its own loopback unless another is given."""
        return self.podman("run", *_HERE, *HARDENED, f"--network={network}", *options, image.id, *arguments)

    def close(self) -> None:
        """Leave nothing running or mounted."""
        run(*self.podman("rm", "--all", "--force", "--time=0"))
        subprocess.run(["umount", self.folder / "store/overlay"], check=False, capture_output=True)


class Built(NamedTuple):
    """The image, where it is, and the wheels that it was built from."""

    store: Store
    wheels: Path
    image: Image


class Loopback:
    """A network that has nothing but loopback, for as long as the context lasts; what listens there is made by `call`."""

    def __enter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1)
        self.path = self.call(_leave_network)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def call(self, what: Callable[..., Any], *arguments: Any) -> Any:
        """What a function returns that is called within; threads that it starts are within, too."""
        return self._thread.submit(what, *arguments).result()


def _leave_network() -> str:
    """Give this thread a network of its own; where others find it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
    with socket.socket() as any_socket:
        _, flags = _INTERFACE.unpack(ioctl(any_socket, _SIOCGIFFLAGS, _INTERFACE.pack(b"lo", 0)))
        ioctl(any_socket, _SIOCSIFFLAGS, _INTERFACE.pack(b"lo", flags | _IFF_UP))
    return f"/proc/{os.getpid()}/task/{libc.gettid()}/ns/net"
