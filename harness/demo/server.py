"""What Streamlit serves: the page, to a browser that asked for this machine by its own name.

A page of another site can reach a local server under that site's host name (DNS rebinding). Every request says which
host it is for, also uploads and the page's WebSocket; requests for another one are refused.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

# With IPv6 addresses as starlette releases have them.
HOSTS = ["localhost", "127.0.0.1", "::1", "[::1]"]

app = st.App(
    Path(__file__).with_name("app.py"),
    middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)],
)
