"""Start the dashboard's server on this machine only, and say how to reach it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Iterable
from pathlib import Path

from carto_core.errors import Cancelled, ConfigError
from carto_core.masking import SWITCH

SERVER = Path(__file__).with_name("server.py")
FIRST_PORT = 8501
PORTS_TO_TRY = 10
ADDRESS = "127.0.0.1"
HOSTS = (ADDRESS, "localhost")  # under any other name, a page elsewhere could have made a browser look here
# .streamlit/config.toml says the same for who starts `streamlit run carto_core/ui/server.py` from the project's folder.
FLAGS = {
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "server.enableXsrfProtection": "true",
    "server.enableCORS": "true",
    "server.enableStaticServing": "false",
    "server.enableAgentApi": "false",
    "server.maxUploadSize": 1,  # megabytes; nothing is uploaded
    "server.maxWidgetStateSize": 5,  # what a browser may send: a lasso is a kilobyte
    "server.maxMessageSize": 100,  # what it is sent: a map is half a megabyte
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
    "client.showErrorLinks": "false",  # they would take an error's words to a search engine
    "client.disableDataExport": "true",  # tables as CSV would hold cells that a spreadsheet executes; lists are exported by us
    "theme.light.primaryColor": "#0072B2",
    "theme.dark.primaryColor": "#56B4E9",
}


def streamlit_command(port: int, *, hosts: Iterable[str] = ()) -> list[str]:
    """Return the server's command line.

    Everything that keeps it private is a flag: the configuration file only applies when started from its own folder.

    Args:
        port: to listen on.
        hosts: further names by which it answers, such as that of a reverse proxy.
    """
    flags = {"server.address": ADDRESS, "server.port": port} | FLAGS
    said = [f"--{name}={value}" for name, value in flags.items()]
    said += [f"--server.allowedHosts={host}" for host in (*HOSTS, *hosts)]
    return [sys.executable, "-m", "streamlit", "run", str(SERVER), *said]


def free_port(port: int | None) -> int:
    """Return the port asked for, or the first free one from 8501.

    Raises:
        ConfigError: the port asked for, or all that were tried, are busy.
    """
    tried = [port] if port is not None else list(range(FIRST_PORT, FIRST_PORT + PORTS_TO_TRY))
    for candidate in tried:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((ADDRESS, candidate))
            except (OSError, OverflowError):
                continue
            return candidate
    raise ConfigError(f"port {tried[0]} is busy or not allowed; choose another with --port, or leave --port out")


def serve(
    runs_root: Path,
    *,
    run_id: str | None,
    port: int | None,
    browser: bool,
    mask_pii: bool = False,
    hosts: Iterable[str] = (),
) -> None:
    """Serve the dashboard until it is stopped with Ctrl-C, opening a browser where there is one.

    Args:
        runs_root: the folder of runs.
        run_id: opened first; None for the home page.
        port: None takes the first free one.
        browser: whether to open one.
        mask_pii: hide personal data in every session, so that no page can show them.
        hosts: see `streamlit_command`.
    """
    port = free_port(port)
    url = f"http://{ADDRESS}:{port}/" + (f"map?run={run_id}" if run_id else "")
    environment = os.environ | {"CARTO_RUNS": str(Path(runs_root).absolute())} | ({SWITCH: "1"} if mask_pii else {})
    with subprocess.Popen(streamlit_command(port, hosts=hosts), env=environment, stdout=subprocess.DEVNULL) as server:
        threading.Thread(target=_announce, args=(url, port, server), kwargs={"browser": browser}, daemon=True).start()
        try:
            server.wait()
        except (KeyboardInterrupt, Cancelled):
            server.terminate()
            server.wait()
    if server.returncode not in (0, -15):
        raise ConfigError(f"the dashboard's server ended with code {server.returncode}; its messages are above")


def _announce(url: str, port: int, server: subprocess.Popen[bytes], *, browser: bool) -> None:
    if not _listening(port, server):
        return
    print(f"\n  Dashboard: {url}\n  Stop it with Ctrl-C.", flush=True)
    if has_display() and browser:
        webbrowser.open(url)
        return
    print(
        f"  From another machine: ssh -L {port}:{ADDRESS}:{port} THIS_MACHINE, then open the address there.", flush=True
    )


def _listening(port: int, server: subprocess.Popen[bytes]) -> bool:
    while server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((ADDRESS, port)) == 0:
                return True
        time.sleep(0.1)
    return False


def has_display() -> bool:
    """Return whether a browser window could open here: a screen, and no ssh session."""
    if os.environ.get("SSH_CONNECTION"):
        return False
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
