"""The contract of encoders."""
