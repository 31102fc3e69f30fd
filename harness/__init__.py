"""harness: which anomaly detector to trust on your images.

The way through, one module a step, imports pointing one way:

    config -> plan -> execute -> store -> report
                         |
                      backends -> predictions -> metrics
"""

__version__ = "0.1.0"
