"""Who may speak to the server, name by name."""

import pytest

from carto_core.ui import gate
from carto_core.ui.launch import streamlit_command

HERE = "127.0.0.1:8501"


@pytest.fixture
def proxied(monkeypatch):
    options = {"server.allowedHosts": ["127.0.0.1", "localhost", "carto.example.org"]}
    monkeypatch.setattr(gate.st, "get_option", options.__getitem__)


@pytest.mark.parametrize(
    ("host", "origin"),
    [(HERE, None), (HERE, f"http://{HERE}"), ("localhost:9", "http://localhost:9"), ("LOCALHOST", None)],
)
def test_our_own_names_and_pages_pass(host, origin):
    assert gate.is_ours(host, origin)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        (None, None),
        ("", None),
        ("evil.example", None),
        ("127.0.0.1.evil.example", None),
        ("user@127.0.0.1", None),
        ("127.0.0.1:port", None),
        ("127.0.0.1/x", None),
        ("[::1", None),
        (HERE, ""),
        (HERE, "null"),
        (HERE, "http://evil.example"),
        (HERE, "http://127.0.0.1:8502"),
        (HERE, f"ftp://{HERE}"),
        (HERE, f"http://{HERE}.evil.example"),
        (HERE, "http://localhost:8501"),
        (HERE, "http://[::1"),
    ],
)
def test_other_names_and_other_pages_do_not(host, origin):
    assert not gate.is_ours(host, origin)


def test_the_name_of_a_proxy_passes_once_it_is_allowed(proxied):
    assert gate.is_ours("carto.example.org", "https://carto.example.org")
    assert not gate.is_ours("carto.example.org", "https://evil.example")


def test_a_name_that_is_allowed_is_told_to_the_server():
    assert "--server.allowedHosts=carto.example.org" in streamlit_command(8501, hosts=["carto.example.org"])
