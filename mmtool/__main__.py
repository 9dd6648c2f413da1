"""`python -m mmtool` is the same command as `mmtool`."""

from mmtool.cli.main import main

main()
