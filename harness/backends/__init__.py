"""Backends turn specs into predictions; see base.py for the contract."""
