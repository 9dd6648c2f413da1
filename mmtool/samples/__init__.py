"""Small, free media files for the demo and the tests; LICENSES.md says whose they are."""
