"""Built-in fusions, found through entry points as any other plugin's."""
