"""The parts of `extract`: its encoders, its loop over blocks, and the folder it fills."""
