"""Model names and folders -> loaded models, whole and of the right kind, on the hardware that is there."""
