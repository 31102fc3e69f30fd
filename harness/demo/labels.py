"""A classification on the page: label, probability, answer, label set, and the pixels behind the label."""

from __future__ import annotations

from functools import partial

import numpy as np
import streamlit as st

from harness.demo.dropped import cached, dropped_images
from harness.demo.show import choose_opacity, notes, plain, problems
from harness.demo.uploads import Upload
from harness.inference.class_result import DONT_KNOW, ClassResult
from harness.inference.classifier import Classifier
from harness.predictions.detection import Floats
from harness.predictions.drawing import heat, overlay

SPAN = (0.0, 1.0)  # of a map


def show_classifier(model: Classifier, key: str) -> None:
    """Show the field for images and their predictions, the least sure one first.

    Args:
        model: the classification.
        key: of the run; another key predicts anew.
    """
    no_maps = [f"there is no Grad-CAM: {model.scorer.map_note}"] if model.scorer.map_note else []
    notes([*model.notes, *no_maps])
    images = [(upload, row.result) for upload, row in dropped_images(model, key) if isinstance(row.result, ClassResult)]
    opacity = 0.5 if no_maps else choose_opacity("labels")
    with cached("explained") as map_of:
        for upload, result in sorted(images, key=lambda image: image[1].probability):
            grad_cam = map_of(f"{key} {upload.digest}", partial(_pixels_behind, model, upload, result.label))
            if isinstance(grad_cam, str):
                problems([f"{upload.name}: no Grad-CAM. {grad_cam}"])
            _show(upload, result, None if isinstance(grad_cam, str) else grad_cam, opacity)


def _pixels_behind(model: Classifier, upload: Upload, label: str) -> Floats | str | None:
    """The map of Grad-CAM, None for a model without maps, or the message of an error."""
    try:
        return model.grad_cam(upload.reading.pixels, label)
    # Torch may run out of memory, for example. The page shows the message, and the prediction without a map.
    except Exception as failure:  # noqa: BLE001
        return f"{type(failure).__name__}: {failure}"


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
