"""Where a pixel of an image is in the anomaly map, after a model's own pre-processor."""

from __future__ import annotations

from anomalib.models import AnomalibModule

# Steps of a pre-processor that change values only.
KEEPS_PLACES = ("Normalize", "ToDtype", "ToImage", "ToTensor", "Identity", "ConvertImageDtype")


def before_crop(model: AnomalibModule) -> tuple[tuple[int, int] | None, list[str]]:
    """(height, width) images are resized to, where the model's pre-processor then cuts out their centre.

    Also a sentence for each step of it of which is not known where it leaves a pixel.
    """
    resized: tuple[int, int] | None = None
    cropped, warnings = False, []
    transform = getattr(model.pre_processor, "transform", None)
    for step in getattr(transform, "transforms", [transform] if transform is not None else []):
        name = type(step).__name__
        if name == "Resize":
            resized = (step.size[0], step.size[-1])
        elif name == "CenterCrop":
            cropped = True
        elif name not in KEEPS_PLACES:
            warnings.append(
                f"pre-processor: {name} may move pixels; pixel metrics and pictures are right only where it does not "
                "(SquarePad: where images are square)"
            )
    return (resized if cropped else None), warnings
