"""The script of Streamlit: `streamlit run app.py -- RESULTS`, see launch.py."""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st

from harness.demo import fit, use

RESULTS = Path(sys.argv[1] if len(sys.argv) > 1 else "results")


def _use() -> None:
    use.page(RESULTS)


def _fit() -> None:
    fit.page(RESULTS)


st.set_page_config(page_title="harness", layout="wide")
st.navigation([
    st.Page(_use, title="Use a run", url_path="use", default=True),
    st.Page(_fit, title="Fit a new run", url_path="fit"),
]).run()  # fmt: skip
