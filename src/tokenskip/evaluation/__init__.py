"""An adapter -> numbers."""
