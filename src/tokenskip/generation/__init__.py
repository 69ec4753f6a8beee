"""A completion, and whether its answer is right."""
