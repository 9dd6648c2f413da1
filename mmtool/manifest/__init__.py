"""Reading tables of samples, a row at a time."""
