"""mmtool: from a table of pictures, texts, sounds and numbers to a multimodal model."""

__version__ = "0.1.0"
