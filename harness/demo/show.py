"""A result on the page: score and label; image, heatmap and overlay with the colours that the reader wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st

from harness.data.base import GOOD
from harness.data.images import RGB
from harness.inference.pictures import own_span
from harness.inference.result import Result
from harness.predictions.decision import Thresholds
from harness.predictions.detection import Floats
from harness.predictions.drawing import Span, heat, line_width, outlined, overlay

LABELS = {True: ("anomalous", "red"), False: ("normal", "green"), None: ("no threshold", "gray")}


@dataclass(frozen=True)
class Shown:
    """An image with what the model says of it.

    Attributes:
        name: for the reader.
        pixels: as read.
        result: the model's.
        truth: what it is known to be; None where nothing is known.
    """

    name: str
    pixels: RGB
    result: Result
    truth: str | None = None


@dataclass(frozen=True)
class Colours:
    """How maps are drawn.

    Attributes:
        span: what the ends of the colour scale stand for; None: each map's own values.
        opacity: of the overlay.
    """

    span: Span | None
    opacity: float


def choose_colours(shown: Sequence[Shown], key: str) -> Colours:
    """The controls beside the page, for the maps that are shown."""
    opacity = st.sidebar.slider("Overlay opacity", 0.0, 1.0, 0.5, 0.05, key=f"opacity-{key}")
    by_hand = st.sidebar.radio(
        "Colour range",
        ["automatic", "by hand"],
        help="Automatic: from the median of normal pixels, over the threshold in the middle, to as far above. "
        "The same for all images of a run.",
        key=f"range-{key}",
    )
    maps = [one.result.anomaly_map for one in shown if one.result.anomaly_map is not None]
    automatic = shown[0].result.thresholds.span if shown else None
    if by_hand == "automatic" or not maps:
        return Colours(automatic, opacity)
    low, high = min(float(one.min()) for one in maps), max(float(one.max()) for one in maps)
    if automatic is not None:
        low, high = min(low, automatic[0]), max(high, automatic[1])
    step = (high - low) / 200 or 1.0
    given = st.sidebar.slider(
        "Raw map values", low, max(high, low + step), automatic or (low, high), step, format="%.4g", key=f"span-{key}"
    )
    return Colours((float(given[0]), float(given[1])), opacity)


def show(one: Shown, colours: Colours) -> None:
    """One image: what is said of it, then three pictures side by side."""
    result = one.result
    word, colour = LABELS[result.label]
    facts = [f"score {result.score:.4g}"]
    if result.threshold is not None:
        facts.append(f"threshold {result.threshold:.4g}")
    if result.normalized_score is not None:
        facts.append(f"normalised {result.normalized_score:.3f}")
    with st.container(border=True):
        title, badge = st.columns([5, 1], vertical_alignment="center")
        title.text(one.name)
        badge.badge(word, color=colour)
        if one.truth is not None:
            facts.append(_judgement(one.truth, result.label))
        facts += list(result.reading)
        st.caption(_plain("  ·  ".join(facts)))
        whole = result.map_at_image_size()
        if whole is None:
            st.image(one.pixels, caption="this model gives no map", width="stretch")
            return
        _pictures(one, whole, colours)


def _judgement(truth: str, label: bool | None) -> str:
    """What the image is in truth, and which mistake that makes of the label."""
    mistake = {(True, True): ": a false alarm", (False, False): ": missed"}.get((truth == GOOD, bool(label)), "")
    return f"in truth {truth}{mistake if label is not None else ''}"


def _pictures(one: Shown, whole: Floats, colours: Colours) -> None:
    span = colours.span or own_span(whole)
    image = one.pixels
    if one.result.thresholds.pixel is not None:
        image = outlined(image, whole, one.result.thresholds.pixel, line_width(one.result.image_size))
    pictures = {
        "image, with what is above the threshold": image,
        "heatmap": heat(whole, span),
        "overlay": overlay(one.pixels, whole, span, colours.opacity),
    }
    for column, (caption, picture) in zip(st.columns(3), pictures.items(), strict=True):
        column.image(np.ascontiguousarray(picture), caption=caption, width="stretch", output_format="JPEG")


def problems(sentences: Sequence[str]) -> None:
    """What is wrong with what was dropped."""
    for sentence in sentences:
        st.warning(_plain(sentence))


def notes(sentences: Sequence[str]) -> None:
    """What is good to know."""
    for sentence in sentences:
        st.caption(_plain(sentence))


def threshold_note(thresholds: Thresholds) -> list[str]:
    """Where the threshold comes from."""
    return [f"threshold fixed by: {thresholds.fixed_by}"] if thresholds.image is not None else []


def success(sentence: str) -> None:
    """What was done."""
    st.success(_plain(sentence))


def error(sentences: Sequence[str]) -> None:
    """Why nothing could be done."""
    for sentence in sentences:
        st.error(_plain(sentence))


def _plain(text: str) -> str:
    """Text as text: file names must not become Markdown, links or formulas."""
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>()#+!|$~:" else char for char in text)
