"""The features folder: its header, its shards, and reading them back."""
