"""One prediction on the page: score and label; image, heatmap and overlay in the colours of the user."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st

from harness.data.images import RGB
from harness.data.samples import GOOD
from harness.demo.uploads import Upload
from harness.inference.pictures import value_range
from harness.inference.predict import Row
from harness.inference.result import Result
from harness.predictions.decision import Thresholds
from harness.predictions.detection import Floats
from harness.predictions.drawing import Span, heat, line_width, outlined, overlay

LABELS = {True: ("anomalous", "red"), False: ("normal", "green"), None: ("no threshold", "gray")}


@dataclass(frozen=True)
class ShownImage:
    """An image with its prediction.

    Attributes:
        name: name for the user.
        pixels: the image, uint8 RGB of shape (height, width, 3).
        result: the prediction.
        truth: the true defect type, or `GOOD`; None without a ground truth.
    """

    name: str
    pixels: RGB
    result: Result
    truth: str | None = None


@dataclass(frozen=True)
class Colours:
    """Colours of the maps.

    Attributes:
        span: raw map values at the ends of the colour scale; None for the smallest and largest value of each map.
        opacity: opacity of the overlay, 0 to 1.
    """

    span: Span | None
    opacity: float


def shown_images(predicted: Iterable[tuple[Upload, Row]]) -> list[ShownImage]:
    """Images of a user with the predictions of a detector, the highest score first.

    Args:
        predicted: the images, and their rows.
    """
    images = [
        ShownImage(upload.name, upload.reading.pixels, row.result)
        for upload, row in predicted
        if isinstance(row.result, Result)
    ]
    return sorted(images, key=lambda image: image.result.score, reverse=True)


def choose_colours(images: Sequence[ShownImage], key: str) -> Colours:
    """Show the controls of the colours in the sidebar.

    Args:
        images: all images of the page.
        key: key of the controls, different on each page.

    Returns:
        The colours that the user selects.
    """
    opacity = choose_opacity(key)
    mode = st.sidebar.radio(
        "Colour range",
        ["automatic", "by hand"],
        help="Automatic: the threshold is in the middle of the range, the median of normal pixels at its lower end. "
        "All images of a run have the same range.",
        key=f"range-{key}",
    )
    maps = [image.result.anomaly_map for image in images if image.result.anomaly_map is not None]
    automatic = images[0].result.thresholds.span if images else None
    if mode == "automatic" or not maps:
        return Colours(automatic, opacity)
    low, high = min(float(values.min()) for values in maps), max(float(values.max()) for values in maps)
    if automatic is not None:
        low, high = min(low, automatic[0]), max(high, automatic[1])
    step = (high - low) / 200 or 1.0
    span = st.sidebar.slider(
        "Raw map values", low, max(high, low + step), automatic or (low, high), step, format="%.4g", key=f"span-{key}"
    )
    return Colours((float(span[0]), float(span[1])), opacity)


def choose_opacity(key: str) -> float:
    """Show the control of the overlay's opacity in the sidebar.

    Args:
        key: key of the control, different on each page.
    """
    return st.sidebar.slider("Overlay opacity", 0.0, 1.0, 0.5, 0.05, key=f"opacity-{key}")


def show(image: ShownImage, colours: Colours) -> None:
    """Show the prediction for one image, then three pictures side by side.

    Args:
        image: the image with its prediction.
        colours: colours of the map.
    """
    result = image.result
    label, colour = LABELS[result.label]
    facts = [f"score {result.score:.4g}"]
    if result.threshold is not None:
        facts.append(f"threshold {result.threshold:.4g}")
    if result.normalized_score is not None:
        facts.append(f"normalised {result.normalized_score:.3f}")
    with st.container(border=True):
        title, badge = st.columns([5, 1], vertical_alignment="center")
        title.text(image.name)
        badge.badge(label, color=colour)
        if image.truth is not None:
            facts.append(_ground_truth(image.truth, result.label))
        facts += list(result.reading)
        st.caption(plain("  ·  ".join(facts)))
        full_map = result.map_at_image_size()
        if full_map is None:
            st.image(image.pixels, caption="this model has no maps", width="stretch")
            return
        _pictures(image, full_map, colours)


def _ground_truth(truth: str, label: bool | None) -> str:
    """The true defect type, and the type of error if the label is wrong."""
    error_type = {(True, True): ": false positive", (False, False): ": false negative"}
    return f"ground truth {truth}{'' if label is None else error_type.get((truth == GOOD, label), '')}"


def _pictures(image: ShownImage, full_map: Floats, colours: Colours) -> None:
    span = colours.span or value_range(full_map)
    pixels = image.pixels
    if image.result.thresholds.pixel is not None:
        pixels = outlined(pixels, full_map, image.result.thresholds.pixel, line_width(image.result.image_size))
    pictures = {
        "image with outlines at the threshold": pixels,
        "heatmap": heat(full_map, span),
        "overlay": overlay(image.pixels, full_map, span, colours.opacity),
    }
    for column, (caption, picture) in zip(st.columns(3), pictures.items(), strict=True):
        column.image(np.ascontiguousarray(picture), caption=caption, width="stretch", output_format="JPEG")


def problems(sentences: Sequence[str]) -> None:
    """Show problems with the uploaded images, one warning for each sentence."""
    for sentence in sentences:
        st.warning(plain(sentence))


def notes(sentences: Sequence[str]) -> None:
    """Show notes in small print, one for each sentence."""
    for sentence in sentences:
        st.caption(plain(sentence))


def threshold_note(thresholds: Thresholds) -> list[str]:
    """One sentence on the samples that fix the threshold; empty without a threshold."""
    return [f"threshold fixed by: {thresholds.fixed_by}"] if thresholds.image is not None else []


def success(sentence: str) -> None:
    """Show a message of success."""
    st.success(plain(sentence))


def error(sentences: Sequence[str]) -> None:
    """Show why a task failed, one message for each sentence."""
    for sentence in sentences:
        st.error(plain(sentence))


def plain(text: str) -> str:
    """Escape a text, so that a file name does not become Markdown, a link or a formula."""
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>()#+!|$~:" else char for char in text)
