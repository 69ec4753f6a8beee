"""Commands of the command line that have their own file; `tokenskip.cli` registers each with one line."""
