"""Forward passes at the machine's limit: paths through an encoder, lanes that run them, and the check that they agree."""
