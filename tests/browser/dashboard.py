"""A real server on 127.0.0.1 and a real Chromium, for tests and for screenshots."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import sync_playwright

from carto_core.ui.launch import ADDRESS, streamlit_command

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
READY_S = 60
PATIENCE_MS = 90_000  # other tests run at the same time, and a browser without a card draws slowly


@contextlib.contextmanager
def serving(runs_root, cwd):
    """Yield the address of a dashboard on `runs_root`, started from another folder than the project's."""
    port = _any_free_port()
    environment = os.environ | {"CARTO_RUNS": str(runs_root)}
    log = cwd / f"server-{port}.log"
    with log.open("wb") as out:
        server = subprocess.Popen(streamlit_command(port), cwd=cwd, env=environment, stdout=out, stderr=out)
    try:
        _wait_until_healthy(port, server, log)
        yield f"http://{ADDRESS}:{port}"
    finally:
        server.terminate()
        server.wait(timeout=20)


@contextlib.contextmanager
def chromium():
    """Yield a browser; without one the test is skipped on a laptop, and fails in CI."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        message = "no Chromium found; install Debian's chromium"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def visitor(browser, **how):
    """Return a browser session of its own, of a viewport and other settings, that waits for a busy machine."""
    context = browser.new_context(**how)
    context.set_default_timeout(PATIENCE_MS)
    return context


def watched(context):
    """Return a list that fills with every address outside this machine that the context's pages ask for."""
    outside = []

    def look(address):
        parts = urlsplit(address)
        if parts.scheme not in ("data", "blob", "about") and parts.hostname != ADDRESS:
            outside.append(address)

    context.on("request", lambda request: look(request.url))
    context.on("page", lambda page: page.on("websocket", lambda socket: look(socket.url)))
    return outside


def settled(page):
    """Wait until the page's script has run to its end and nothing on it is stale."""
    page.wait_for_function(
        "() => { const app = document.querySelector('[data-testid=stApp]');"
        " return app && app.dataset.testScriptState === 'notRunning'"
        " && !document.querySelector('[data-stale=true]'); }",
        timeout=PATIENCE_MS,
    )


def _any_free_port():
    """Return a port that the system picks: tests that run side by side would pick the same one from 8501 on."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return probe.getsockname()[1]


def _wait_until_healthy(port, server, log):
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text(errors="replace")
        healthy = f"http://{ADDRESS}:{port}/_stcore/health"
        with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(healthy, timeout=1):
            return
        time.sleep(0.1)
    raise TimeoutError(log.read_text(errors="replace"))
