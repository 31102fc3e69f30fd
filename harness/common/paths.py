"""Paths and names as people write them in a config."""

from __future__ import annotations

import os
import re
from hashlib import sha256
from pathlib import Path
from typing import Annotated
from unicodedata import normalize

from pydantic import AfterValidator

# A name for a folder: letters and digits of any script.
NAME = re.compile(r"[^\W][\w.-]*")
LONGEST = 120  # characters of a name; run ids and files are below it
OF_THE_HARNESS = {"_toy"}  # data made beside the results
VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")


def expanded(text: str) -> str:
    """A path with `~` and environment variables (`$DATA`) put in; one that exists as it stands is taken as it is.

    Raises:
        ValueError: a variable is not set, there is no such home folder, or the path can't be one.
    """
    if "\x00" in text or not _is_text(text):
        raise ValueError(f"expected a path in UTF-8; found {text!r}")
    if not text.startswith("~") and ("$" not in text or os.path.lexists(text)):
        return text
    found = os.path.expandvars(os.path.expanduser(text))  # noqa: PTH111  # `$HOME/~x` and Windows too
    missing = VARIABLE.search(found)
    if missing:
        raise ValueError(f"found {text!r}, but the environment variable {missing.group()} is not set")
    if found.startswith("~"):
        raise ValueError(f"found {text!r}, but there is no such home folder")
    return found


PathText = Annotated[str, AfterValidator(expanded)]


def problem_of_name(name: str) -> str:
    """What is wrong with a name for a result folder; empty where nothing is."""
    if not NAME.fullmatch(name) or not _is_text(name):
        return f"expected a name for a folder (letters, digits, . _ -); found {name!r}"
    if len(name) > LONGEST or len(name.encode()) > 2 * LONGEST:
        return f"expected a name of at most {LONGEST} letters; found {len(name)}: {name[:40]!r} ..."
    if name.lower() in OF_THE_HARNESS:
        return f"{name!r} is taken by the harness for data that it makes; expected another name"
    return ""


def name_of_file(path: Path) -> str:
    """A name for a result folder from a config's file name; different for different file names."""
    stem = path.stem
    name = re.sub(r"[^\w.-]", "-", normalize("NFC", stem)).lstrip(".-") or "sweep"
    if name == stem and not problem_of_name(name):
        return name
    # Something was replaced, and another file may have lost the same.
    digest = sha256(stem.encode(errors="surrogateescape")).hexdigest()[:6]
    return f"{name[: LONGEST // 2]}-{digest}"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
