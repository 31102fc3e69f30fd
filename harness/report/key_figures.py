"""Key figures of a recommended configuration that every task has: the time of an image, and the size of the model."""

from __future__ import annotations

from harness.report.configurations import Configuration

# A line of the key figures: name, value, remark.
Figure = tuple[str, str, str]


def time_figure(configuration: Configuration) -> Figure | None:
    """The time of a single image; None where no run was timed.

    Args:
        configuration: the recommended one.

    Returns:
        The median in milliseconds, with the device.
    """
    if configuration.latency is None:
        return None
    remark = f"on {configuration.first.device}" + (", timed on a busy machine: too long" if configuration.busy else "")
    return "time for an image", f"{configuration.latency:.1f} ms", remark


def size_figure(configuration: Configuration) -> Figure | None:
    """The size of the model; None where it is unknown.

    Args:
        configuration: the recommended one.

    Returns:
        The size in megabytes, with the time of the training.
    """
    megabytes, seconds = configuration.cost("model_MB"), configuration.cost("fit_seconds")
    if megabytes is None:
        return None
    return "model size", f"{megabytes:.1f} MB", "" if seconds is None else f"trained in {seconds:.1f} s"
