"""A connection to a Ray cluster, built in the background with a time limit; or a new cluster on this machine."""

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
STARTS_WITHIN = 180.0  # seconds
ATTEMPTS = 3  # of a Ray server to start its process for this client
INSTALL = "pip install 'harness[ray]'"


class Connecting:
    """A connection in progress.

    Args:
        address: address of the cluster: auto, host:port or ray://host:port; None starts a cluster on this machine.
        on_connected: called after the connection, in the same thread.
    """

    def __init__(self, address: str | None, on_connected: Callable[[], None]) -> None:
        self._address, self._on_connected = address, on_connected
        self._errors: list[BaseException] = []
        self._thread = Thread(target=self._connect, daemon=True)

    def begin(self) -> None:
        """Start to connect.

        Raises:
            ConfigError: Ray is not installed, or no program listens at the address.
        """
        require_ray("--launcher ray")
        if self._address is not None and self._address != "auto":
            _check_address(self._address)
        if self._address is None:
            # A cluster that starts in another thread hangs. The messages of its start do not help a user.
            with redirect_stderr(io.StringIO()):
                self._connect()
        else:
            self._thread.start()

    def wait(self) -> None:
        """Wait for the connection.

        Raises:
            ConfigError: there is no connection within the time limit.
        """
        if self._address is not None:
            self._thread.join(ANSWERS_WITHIN)
            if self._thread.is_alive() and self._address.startswith("ray://") and _is_ray_server(self._address):
                # The server answers. It starts a process for this client, which takes longer.
                self._thread.join(STARTS_WITHIN)
        if self._thread.is_alive():
            self._errors.append(TimeoutError(f"no answer within {ANSWERS_WITHIN:.0f} s"))
        if not self._errors:
            return
        raise ConfigError(
            f"--address: {self._address or 'a cluster of this machine'} could not be reached "
            f"({_reason(self._errors[0])}); expected "
            "auto (a cluster that runs on this machine), host:port, or ray://host:port. Start the cluster with `ray "
            "start --head`. For a cluster with tokens, set RAY_AUTH_MODE=token and the token here and on all nodes."
        ) from self._errors[0]

    def _connect(self) -> None:
        # Ray sends no usage statistics, unless the user enables them.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            _init(self._address)
            self._on_connected()
        # Ray raises many types of exceptions for an address.
        except BaseException as error:  # noqa: BLE001
            self._errors.append(error)


def _init(address: str | None) -> None:
    import ray

    for attempt in range(1, ATTEMPTS + 1):
        try:
            # Without an address, Ray would search for the cluster of another program, or for its remains.
            ray.init(address=address or "local", log_to_driver=False, configure_logging=False, include_dashboard=False)
        except ConnectionAbortedError:
            # The server of Ray's client allows its new process 30 seconds. A busy machine can need more.
            if attempt == ATTEMPTS:
                raise
        else:
            return


def _reason(error: BaseException) -> str:
    """One line of an error of Ray. The last line of a traceback from a server says more than the first one."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    return lines[-1] if isinstance(error, ConnectionAbortedError) else lines[0]


def _is_ray_server(address: str) -> bool:
    """Whether a server with the protocol of Ray's client listens at the address."""
    import grpc

    with grpc.insecure_channel(urlsplit(address).netloc) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=2)
        except grpc.FutureTimeoutError:
            return False
    return True


def require_ray(feature: str, *modules: str) -> None:
    """Check that Ray is installed.

    Args:
        feature: command or option that needs Ray, for the message.
        modules: other required modules of the same extra.

    Raises:
        ConfigError: Ray or a module is not installed.
    """
    missing = [name for name in ("ray", *modules) if find_spec(name) is None]
    if missing:
        names = " and ".join("Ray" if name == "ray" else name for name in missing)
        raise ConfigError(f"{feature}: needs {names}, which is not installed; {INSTALL}.")


def _check_address(address: str) -> None:
    """Raise an error at once if the address is malformed, or if no program listens there."""
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
            f"--address: no server answers at {host}:{port} ({error.strerror or error}); expected a Ray cluster. Start "
            "the cluster there with `ray start --head`."
        ) from error
