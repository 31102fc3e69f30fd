"""The field for images: files of the user, and pictures from a camera."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from harness.demo.show import notes, problems
from harness.demo.uploads import LARGEST_FILE, TYPES, Upload, decode

CAMERA_WIDTH = 480  # pixels on the page
CAMERA_HELP = (
    "Take pictures like the training images: with the same camera, light and distance. A run knows only normal parts "
    "that look so."
)


@dataclass(frozen=True)
class CameraImage:
    """A picture from a camera, as an uploaded file.

    Attributes:
        name: its file name.
        content: the file's content.
    """

    name: str
    content: bytes

    def getvalue(self) -> bytes:
        """The file's content."""
        return self.content


def image_field(label: str, key: str) -> list[Upload]:
    """Show a field for files, and a camera. A file that is no image becomes a message.

    Args:
        label: what to put into the field.
        key: of the field, different for each one of the page.

    Returns:
        The images of both, each once.
    """
    files = st.file_uploader(
        f"{label} (up to {LARGEST_FILE} MB each; they stay on this machine)",
        type=TYPES,
        accept_multiple_files=True,
        key=key,
    )
    pictures = _camera(key)
    uploads, refusals = decode([*(files or []), *pictures], st.session_state.setdefault(f"decoded-{key}", {}))
    problems(refusals)
    return uploads


def _camera(key: str) -> list[CameraImage]:
    """Show a camera where the user wants one, and the names of its pictures; they stay until the user removes them.

    The browser asks for permission as soon as the page shows a camera, so the page shows none before.
    """
    pictures: list[CameraImage] = st.session_state.setdefault(f"pictures-{key}", [])
    if st.toggle("Take pictures with a camera", key=f"camera-{key}", help=CAMERA_HELP):
        st.camera_input("Camera", key=f"shot-{key}", on_change=_keep, args=(key,), width=CAMERA_WIDTH)
    if pictures:
        notes([f"Pictures: {', '.join(picture.name for picture in pictures)}"])
        st.button("Remove the pictures", key=f"remove-{key}", on_click=pictures.clear)
    return pictures


def _keep(key: str) -> None:
    """Keep the new picture of a camera; the camera itself has only the last one."""
    shot = st.session_state[f"shot-{key}"]
    if shot is None:
        return
    number = st.session_state.get(f"shots-{key}", 0) + 1
    st.session_state[f"shots-{key}"] = number
    st.session_state[f"pictures-{key}"].append(CameraImage(f"picture-{number}.jpg", shot.getvalue()))
