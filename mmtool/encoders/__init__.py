"""Encoders that come with mmtool. Nothing is imported here: entry points name the modules."""
