"""Connecting to a Ray cluster in the background, without an endless wait; or starting one on this machine."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable
from contextlib import redirect_stderr
from importlib.util import find_spec
from threading import Thread
from urllib.parse import urlsplit

from harness.common.errors import ConfigError

ANSWERS_WITHIN = 12.0  # seconds
STARTS_WITHIN = 60.0  # seconds
INSTALL = "pip install 'harness[ray]'"


class Connecting:
    """A connection that is being made.

    Args:
        address: of the cluster: auto, host:port or ray://host:port; None starts one on this machine.
        then: called once it is there, in the background too.
    """

    def __init__(self, address: str | None, then: Callable[[], None]) -> None:
        self._address, self._then = address, then
        self._failed: list[BaseException] = []
        self._thread = Thread(target=self._connect, daemon=True)

    def begin(self) -> None:
        """Begin.

        Raises:
            ConfigError: Ray is not installed, or nobody listens at the address.
        """
        require_ray("--launcher ray")
        if self._address is not None and self._address != "auto":
            _knock(self._address)
        if self._address is None:
            # Started from another thread, Ray's own cluster hangs. What it has to say is of no use to anybody.
            with redirect_stderr(io.StringIO()):
                self._connect()
        else:
            self._thread.start()

    def wait(self) -> None:
        """Wait until it is there.

        Raises:
            ConfigError: it will not be.
        """
        if self._address is not None:
            self._thread.join(ANSWERS_WITHIN)
            if self._thread.is_alive() and self._address.startswith("ray://") and _speaks(self._address):
                # It is there, and starts a process for this client, which takes as long as it takes.
                self._thread.join(STARTS_WITHIN)
        if self._thread.is_alive():
            self._failed.append(TimeoutError(f"no answer within {ANSWERS_WITHIN:.0f} s"))
        if not self._failed:
            return
        said = str(self._failed[0]).strip().splitlines() or [type(self._failed[0]).__name__]
        raise ConfigError(
            f"--address: {self._address or 'a cluster of this machine'} found, which could not be reached ({said[0]}); "
            "expected auto (a cluster that runs on this machine), host:port, or ray://host:port, of a cluster started "
            "with `ray start --head`. Of one with tokens, RAY_AUTH_MODE=token and its token are needed here and on all "
            "nodes."
        ) from self._failed[0]

    def _connect(self) -> None:
        # Nothing is told to anybody, unless the user asks for it.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        try:
            # Left to itself, Ray would look for what another program started, or for what is left of it.
            ray.init(
                address=self._address or "local", log_to_driver=False, configure_logging=False, include_dashboard=False
            )
            self._then()
        # Whatever Ray makes of an address.
        except BaseException as error:  # noqa: BLE001
            self._failed.append(error)


def _speaks(address: str) -> bool:
    """Whether what listens there speaks what Ray's client speaks."""
    import grpc

    with grpc.insecure_channel(urlsplit(address).netloc) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=2)
        except grpc.FutureTimeoutError:
            return False
    return True


def require_ray(what: str, *also: str) -> None:
    """Say how to install Ray, where it is missing.

    Args:
        what: needs it.
        also: other modules of the same extra that are needed.

    Raises:
        ConfigError: something is missing.
    """
    missing = [name for name in ("ray", *also) if find_spec(name) is None]
    if missing:
        named = " and ".join("Ray" if name == "ray" else name for name in missing)
        raise ConfigError(f"{what}: needs {named}, which is not installed; {INSTALL}.")


def _knock(address: str) -> None:
    """Nobody listens there: said at once."""
    parts = urlsplit(address if "//" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None:
        raise ConfigError(f"--address: {address!r} found; expected auto, host:port or ray://host:port.")
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        raise ConfigError(
            f"--address: nobody answers at {host}:{port} ({error.strerror or error}); expected a Ray cluster, started "
            "there with `ray start --head`."
        ) from error
