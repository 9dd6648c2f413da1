"""Metrics as functions of how often each row counts, so that a bootstrap is one more call."""
