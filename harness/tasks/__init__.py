"""The tasks. A task defines the kinds of data, the default backend, and the metrics and files of a run."""
