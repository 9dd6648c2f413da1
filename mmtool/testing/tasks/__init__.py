"""The contract of tasks."""
