"""Paths and names as users write them in a config."""

from __future__ import annotations

import os
import re
from hashlib import sha256
from pathlib import Path
from typing import Annotated
from unicodedata import normalize

from pydantic import AfterValidator

# Letters and digits of any script.
NAME = re.compile(r"[^\W][\w.-]*")
MAX_LENGTH = 120  # characters of a name; the paths of runs and files are longer
RESERVED_NAMES = {"_toy"}  # toy data lies beside the results
VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")


def expanded(text: str) -> str:
    """A path with values in place of `~` and environment variables (`$DATA`). An existing path stays unchanged.

    Raises:
        ValueError: a variable is not set, the home folder does not exist, or the text is no path.
    """
    if "\x00" in text or not _is_text(text):
        raise ValueError(f"expected a path in UTF-8; found {text!r}")
    if not text.startswith("~") and ("$" not in text or os.path.lexists(text)):
        return text
    path = os.path.expandvars(os.path.expanduser(text))  # noqa: PTH111  # `$HOME/~x` and Windows too
    missing = VARIABLE.search(path)
    if missing:
        raise ValueError(f"found {text!r}, but the environment variable {missing.group()} is not set")
    if path.startswith("~"):
        raise ValueError(f"found {text!r}, but there is no such home folder")
    return path


PathText = Annotated[str, AfterValidator(expanded)]


def problem_of_name(name: str) -> str:
    """The problem of a name for a result folder; empty for a valid name."""
    if not NAME.fullmatch(name) or not _is_text(name):
        return f"expected a name for a folder (letters, digits, . _ -); found {name!r}"
    if len(name) > MAX_LENGTH or len(name.encode()) > 2 * MAX_LENGTH:
        return f"expected a name of at most {MAX_LENGTH} letters; found {len(name)}: {name[:40]!r} ..."
    if name.lower() in RESERVED_NAMES:
        return f"{name!r} is the folder of the toy data; expected another name"
    return ""


def _folder_name(name: str) -> str:
    if problem := problem_of_name(name):
        raise ValueError(problem)
    return name


FolderName = Annotated[str, AfterValidator(_folder_name)]


def name_of_file(path: Path) -> str:
    """A name for a result folder, from a config's file name. Different file names give different names."""
    stem = path.stem
    name = re.sub(r"[^\w.-]", "-", normalize("NFC", stem)).lstrip(".-") or "sweep"
    if name == stem and not problem_of_name(name):
        return name
    # Another file name may differ in the replaced characters only.
    digest = sha256(stem.encode(errors="surrogateescape")).hexdigest()[:6]
    return f"{name[: MAX_LENGTH // 2]}-{digest}"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
