"""A real server speaks to this machine's own pages alone, and a real browser asks nobody else for anything."""

import base64
import json
import socket
import urllib.error
import urllib.request
import zlib
from urllib.parse import urlsplit

import psutil
import pytest

from carto_core.config import ScoreConfig
from carto_core.ui.launch import ADDRESS
from carto_core.ui.shell import PAGES
from carto_core.workflows import light
from carto_core.workflows.reporting import write_report
from tests import tiny
from tests.browser.dashboard import chromium, serving, settled, visitor, watched
from tests.ui.test_pages import write_audits

NOT_OURS = [
    {"Host": "evil.example"},
    {"Host": "evil.example:{port}"},
    {"Host": "127.0.0.1.evil.example:{port}"},
    {"Host": "evil.example@127.0.0.1:{port}"},
    {"Host": "127.0.0.1:{port}", "Origin": "http://evil.example"},
    {
        "Host": "evil.example:{port}",
        "Origin": "http://evil.example:{port}",
    },  # a name that was bound to this address anew
    {"Host": "127.0.0.1:{port}", "Origin": "http://127.0.0.1:1"},  # another page of this machine
    {"Host": "127.0.0.1:{port}", "Origin": "null"},  # a file, or a frame that is shut in
    {"Host": "127.0.0.1:{port}", "Origin": "file://127.0.0.1:{port}"},
]
OURS = [
    {"Host": "127.0.0.1:{port}"},
    {"Host": "127.0.0.1:{port}", "Origin": "http://127.0.0.1:{port}"},
    {"Host": "localhost:{port}", "Origin": "http://localhost:{port}"},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("private")
    run = tiny.make_run(
        folder / "runs" / "tiny", num_samples=300, config=ScoreConfig(x="difficulty", y="consolidation"), probes=True
    )
    tiny.make_run(folder / "runs" / "after", num_samples=300, seed=1)
    tiny.prepare(run)
    write_audits(run)
    with serving(folder / "runs", folder) as address:
        yield run, address


def answer(address, path, headers, *, upgrade=False):
    """Return the status line of one request, sent byte by byte as given."""
    port = urlsplit(address).port
    lines = [f"GET {path} HTTP/1.1", *(f"{k}: {v.format(port=port)}" for k, v in headers.items())]
    if upgrade:
        lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
        lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: streamlit"]
    else:
        lines += ["Connection: close"]
    with socket.create_connection((ADDRESS, port), timeout=20) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection.recv(4096).decode("latin-1").splitlines()[0]


@pytest.mark.parametrize("headers", NOT_OURS, ids=str)
def test_a_request_by_another_name_or_from_another_page_is_refused(server, headers):
    _, address = server

    assert " 403 " in answer(address, "/_stcore/stream", headers, upgrade=True) + " "
    assert " 403 " in answer(address, "/_stcore/health", headers) + " "


@pytest.mark.parametrize("headers", OURS, ids=str)
def test_our_own_pages_are_answered(server, headers):
    _, address = server

    assert " 101 " in answer(address, "/_stcore/stream", headers, upgrade=True)
    assert " 200 " in answer(address, "/_stcore/health", headers)


def test_the_server_listens_on_this_machine_alone(server):
    _, address = server

    port = urlsplit(address).port
    listening = {c.laddr.ip for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port}
    others = {a.address for found in psutil.net_if_addrs().values() for a in found if a.family == socket.AF_INET} - {
        ADDRESS
    }
    reached = [other for other in others if reaches(other, port)]

    assert listening == {ADDRESS}
    assert reached == []


def reaches(host, port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def test_uploading_needs_a_token_and_programs_get_no_door_of_their_own(server):
    _, address = server
    upload = urllib.request.Request(f"{address}/_stcore/upload_file/x/y", data=b"x", method="PUT")
    agent = urllib.request.Request(
        f"{address}/_stcore/agent/interact", data=b"{}", headers={"Content-Type": "application/json"}
    )

    codes = [status(request) for request in (upload, agent)]

    assert all(code in (400, 403) for code in codes), codes


def status(request):
    try:
        with urllib.request.urlopen(request, timeout=20) as found:
            return found.status
    except urllib.error.HTTPError as error:
        return error.code


def test_answers_forbid_frames_and_other_hosts(server):
    _, address = server

    with urllib.request.urlopen(address, timeout=20) as found:
        headers = {name.lower(): value for name, value in found.headers.items()}

    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http:" not in policy
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"


def test_every_page_with_its_charts_and_downloads_asks_no_other_host(server, tmp_path):
    run, address = server
    rule = light.quadrant_rule("hotspot-memorized", light.Cuts.of(light.load_table(run)))
    view = json.dumps({"region": rule})
    asked, said, buttons, offers = [], [], set(), set()
    with chromium() as browser:
        context = visitor(browser, viewport={"width": 1440, "height": 1400}, accept_downloads=True)
        asked = watched(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        for name in PAGES:
            page.goto(f"{address}/{name}?run=tiny&view={packed(view)}")
            page.get_by_test_id("stHeading").first.wait_for()
            settled(page)
            page.evaluate("() => document.querySelectorAll('details:not([open]) > summary').forEach(s => s.click())")
            settled(page)
            assert page.get_by_test_id("stException").count() == 0
            buttons |= set(
                page.locator(".modebar-btn").evaluate_all("all => all.map(b => b.dataset.title || b.dataset.attr)")
            )
            buttons |= set(page.locator(".modebar a[href]").evaluate_all("all => all.map(a => a.href)"))
            offers |= set(
                page.get_by_test_id("stElementToolbarButton").evaluate_all("all => all.map(b => b.textContent)")
            )
            offers |= {
                n for n in ("stAppDeployButton", "stMainMenu", "stFileUploader") if page.get_by_test_id(n).count()
            }
            if name == "intervene":
                for label in ("Download the report", "Intervention list", "Its manifest", "Cleaned corpus"):
                    with page.expect_download() as download:
                        page.get_by_role("button", name=label).click()
                    download.value.save_as(tmp_path / label)
                    settled(
                        page
                    )  # what is taken is noted, which draws the page anew: a click meanwhile may fall between two buttons
        context.close()

    assert asked == []
    # The one inline script is Streamlit's own, a flag for crawlers.
    assert {text.split(" violates")[0] for text in said if "Content Security Policy" in text} <= {
        "Executing inline script"
    }
    assert buttons <= {"Box Select", "Lasso Select", "Fullscreen"}
    assert not [offer for offer in offers if "share" in offer.lower() or "upload" in offer.lower() or "CSV" in offer]
    assert offers & {"stAppDeployButton", "stMainMenu", "stFileUploader"} == set()


def packed(text):
    return base64.urlsafe_b64encode(zlib.compress(text.encode())).decode().rstrip("=")


def test_a_report_opened_from_disk_asks_nobody(server, tmp_path):
    run, _ = server
    plan = light.plan_action(
        run, light.select(run, {"type": "top", "by": "consolidation", "q": 0.1}), action="prune", factor=None
    )
    write_report(run, light.save_plan(run, plan), out=tmp_path / "report.html", with_texts=5)
    asked = []
    with chromium() as browser:
        context = visitor(browser)
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.goto((tmp_path / "report.html").as_uri())
        scripts = page.locator("script, iframe, form, link[href], a[href^=http]").count()
        context.close()

    assert [url for url in asked if not url.startswith("file:") and not url.startswith("data:")] == []
    assert len([url for url in asked if url.startswith("file:")]) == 1
    assert scripts == 0
