"""What an answer states, and whether it equals the gold one. Pure but for math-verify, in a separate process."""
