"""The parts of `train`: targets, splits, the exact solver, gradient descent, and what is measured."""
