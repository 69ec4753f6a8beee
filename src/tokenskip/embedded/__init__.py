"""The embedded reasoner: a tiny model trained from scratch in this repository, its problem family and its adapter.

Importing this package reads nothing and does not import torch; it only says where the shipped folders are.
"""

from pathlib import Path

__all__ = ["adapter_path", "compressor_path", "model_path"]

_HERE = Path(__file__).resolve().parent


def model_path() -> Path:
    """The shipped model folder (config, weights, tokenizer, chat template, model card)."""
    return _HERE / "model"


def adapter_path() -> Path:
    """The shipped TokenSkip adapter of the embedded model."""
    return _HERE / "adapter"


def compressor_path() -> Path:
    """The shipped token classifier that scores the embedded model's chains."""
    return _HERE / "compressor"
