"""Measurements side by side with anomalib; see README.md here."""

import os

# Before Torch is imported, as in the commands of the harness: a thread that waits would count as processor time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
