"""Built-in tasks, found through entry points as any other plugin's."""
