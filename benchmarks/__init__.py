"""Measurements side by side with anomalib; see README.md here."""
