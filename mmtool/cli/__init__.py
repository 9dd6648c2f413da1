"""The command line: it parses, calls one function of the library, prints, and ends."""
