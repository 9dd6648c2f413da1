"""The contract of fusions."""
