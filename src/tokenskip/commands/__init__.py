"""Commands of the command line that have a file of their own; `tokenskip.cli` registers each with one line."""
