"""Start and stop the server of the page."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import webbrowser
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from rich.markup import escape

from harness.common.errors import ConfigError, HarnessError, StoreError
from harness.common.terminal import Terminal
from harness.demo.uploads import LARGEST_FILE
from harness.execution.interrupt import Interrupt

HOST = "localhost"
ADDRESS = "127.0.0.1"
TIMEOUT = 60  # seconds until the server must answer
# No data leaves the machine. Streamlit asks for no e-mail address and offers no publishing.
SETTINGS = {
    "server.address": ADDRESS,
    "server.headless": "true",
    "server.showEmailPrompt": "false",
    "server.fileWatcherType": "none",
    "server.maxUploadSize": str(LARGEST_FILE),
    "browser.gatherUsageStats": "false",
    "browser.serverAddress": HOST,
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "global.developmentMode": "false",
    "theme.base": "light",
    "theme.primaryColor": "#3b5bdb",
}


def serve(results: Path, port: int, open_browser: bool) -> int:
    """Serve the page until Ctrl-C.

    Args:
        results: folder of result folders.
        port: port of localhost.
        open_browser: whether to open the page in the browser.

    Returns:
        The exit status.

    Raises:
        ConfigError: Streamlit is not installed, or the port is taken.
        StoreError: there is no such folder.
        HarnessError: Streamlit ends or does not answer.
    """
    if find_spec("streamlit") is None:
        raise ConfigError(
            "demo: streamlit not installed. Run, in the folder of harness: python -m pip install -e '.[demo]'"
        )
    if not results.is_dir():
        raise StoreError(
            f"{results}: {'a file' if results.exists() else 'nothing'} found; expected a folder with results of sweeps "
            "(it may be empty: the page saves its new runs there)."
        )
    _check_free(port)
    settings = [f"--{name}={value}" for name, value in {**SETTINGS, "server.port": str(port)}.items()]
    app = Path(__file__).with_name("server.py")
    command = [sys.executable, "-m", "streamlit", "run", str(app), *settings, "--", str(results.absolute())]
    console = Terminal(sys.stdout)
    with Interrupt(), subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            _wait_for_answer(server, port)
            url = f"http://{HOST}:{port}"
            console.print(f"[bold]{escape(url)}[/] shows {escape(str(results))}; Ctrl-C ends it.")
            if open_browser:
                webbrowser.open(url)
            return server.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            server.terminate()


def _check_free(port: int) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as error:
            raise ConfigError(
                f"--port: {port} can't be used ({error.strerror}); another page may be open there. Name another port."
            ) from error


def _wait_for_answer(server: subprocess.Popen[bytes], port: int) -> None:
    # Requests to this machine must not go through a proxy.
    direct = build_opener(ProxyHandler({}))
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        if server.poll() is not None:
            raise HarnessError(f"demo: Streamlit ended with status {server.returncode}. Read its output above.")
        try:
            with direct.open(f"http://{ADDRESS}:{port}/_stcore/health", timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise HarnessError(f"demo: no answer from Streamlit within {TIMEOUT} seconds. Start it again.")
