"""A classification on the page: label, probability, answer, label set, and the pixels behind the label."""

from __future__ import annotations

from functools import partial

import numpy as np
import streamlit as st

from harness.data.images import Reading
from harness.demo.dropped import dropped_images
from harness.demo.show import choose_opacity, notes, plain
from harness.demo.uploads import Upload
from harness.inference.classifier import DONT_KNOW, Classifier, ClassResult
from harness.predictions.detection import Floats
from harness.predictions.drawing import heat, overlay

SPAN = (0.0, 1.0)  # of a map
# A prediction, and its map of Grad-CAM or None.
Explained = tuple[ClassResult, Floats | None]


def show_classifier(model: Classifier, key: str) -> None:
    """Show the field for images and their predictions, the least sure one first.

    Args:
        model: the classification.
        key: of the run; another key predicts anew.
    """
    no_maps = [f"there is no Grad-CAM: {model.scorer.map_note}"] if model.scorer.map_note else []
    notes([*model.notes, *no_maps])
    images = dropped_images(partial(_explained, model), key)
    opacity = 0.5 if no_maps else choose_opacity("labels")
    for upload, (result, pixels_behind) in sorted(images, key=lambda image: image[1][0].probability):
        _show(upload, result, pixels_behind, opacity)


def _explained(model: Classifier, reading: Reading) -> Explained:
    (result,) = model.results([(None, reading)], [model.prepare(reading)])
    return result, model.grad_cam(reading.pixels, result.label)


def _show(upload: Upload, result: ClassResult, pixels_behind: Floats | None, opacity: float) -> None:
    second = f"second label {result.labels[result.second]}, probability {result.probabilities[result.second]:.3f}"
    facts = [f"label {result.label}, probability {result.probability:.3f}", second]
    if result.label_set is not None:
        facts.append(f"label set: {'; '.join(result.label_set) or 'empty'}")
    colour = {DONT_KNOW: "orange", "": "gray"}.get(result.answer, "green")
    with st.container(border=True):
        title, badge = st.columns([4, 1], vertical_alignment="center")
        title.text(upload.name)
        badge.badge(plain(result.answer or "no label sets"), color=colour)
        st.caption(plain("  ·  ".join([*facts, *result.reading])))
        pixels = upload.reading.pixels
        if pixels_behind is None:
            st.image(pixels, caption="image", width="stretch")
            return
        pictures = {
            "image": pixels,
            f"Grad-CAM of {result.label}": heat(pixels_behind, SPAN),
            "overlay": overlay(pixels, pixels_behind, SPAN, opacity),
        }
        for column, (caption, picture) in zip(st.columns(3), pictures.items(), strict=True):
            column.image(np.ascontiguousarray(picture), caption=plain(caption), width="stretch", output_format="JPEG")
