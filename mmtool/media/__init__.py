"""Where the bytes of cells are decoded: pictures, sound and text, each within the same limits."""
