"""The checks of `tests/faults.py`, by what they are about. Each module has `CASES`: a case's name and its check."""
