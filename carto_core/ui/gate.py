"""What stands in front of the dashboard's server: who may speak to it, and what a browser may do with its answers.

Streamlit checks a WebSocket's `Origin` only after it has asked a host on the internet for this machine's address, takes any
`Host` unless told otherwise, and any page of this machine for its own. Here a request is refused, before Streamlit sees it,
unless its `Host` is one of `server.allowedHosts` and its `Origin`, where a browser sends one, is that same host and port.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import streamlit as st

from carto_core.ui.launch import HOSTS

POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-eval'",  # no inline script, which a text could become; Plotly's WebGL builds functions
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",  # an address holds the run and the selection
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Gate:
    """ASGI middleware; see the module."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on with `HEADERS` added to its answer, or refuse it with 403."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if is_ours(headers.get("host"), headers.get("origin")):
            await self.app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted, that is a 403
        else:
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"This dashboard does not answer to that name.\n"})


def is_ours(host: str | None, origin: str | None) -> bool:
    """Return whether a request came by a name that is ours, and from no page but our own.

    Args:
        host: the `Host` header.
        origin: the `Origin` header; None where there is none, as in a plain request for a page.
    """
    if host is None or _name(f"//{host}") not in (st.get_option("server.allowedHosts") or HOSTS):
        return False
    return origin is None or origin in (f"http://{host}", f"https://{host}")


def _name(address: str) -> str | None:
    """Return the host of an address without its port, lower case; None where there is none."""
    try:
        parts = urlsplit(address)
        _ = parts.port  # raises where it is no number
    except ValueError:
        return None
    return None if parts.username is not None or parts.path else parts.hostname


def _with_headers(send: Send) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            mine = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            names = {name for name, _ in mine}
            message["headers"] = [*(pair for pair in message.get("headers", ()) if pair[0].lower() not in names), *mine]
        await send(message)

    return answer
