"""Why a model predicts what it does: what each input contributes, and where within an input."""
