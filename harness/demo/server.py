"""The server of the page, for browsers that address this machine by its own name.

A page of another site can reach a local server under that site's host name (DNS rebinding). Every request names its
host, also an upload and the page's WebSocket. The server refuses requests for other hosts.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

# Releases of starlette write IPv6 addresses with or without brackets.
HOSTS = ["localhost", "127.0.0.1", "::1", "[::1]"]

app = st.App(
    Path(__file__).with_name("app.py"),
    middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)],
)
