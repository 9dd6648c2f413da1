"""mmtool's starter encoders: pictures, texts and English speech in one space, with no network."""
