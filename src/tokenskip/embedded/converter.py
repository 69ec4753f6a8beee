"""llama.cpp's own converter for the embedded model, whose tokenizer it has no name for.

    python converter.py llama.cpp/convert_hf_to_gguf.py MODEL_FOLDER --outfile MODEL.gguf --outtype f16

llama.cpp knows the pre-tokenizers of published models by a hash, and the embedded model's is none of them. It splits
into whole words, digits and signs, each of them a token, so the longest token that fits is the right one: that is what
llama.cpp calls the `rwkv` tokenizer. Prompts and chains of the embedded family get the same ids; a word that the family
does not have is cut into other pieces than in Python. Everything but the vocabulary is the converter's own work.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def set_vocab(model: Any) -> None:
    """Write the tokens of a byte-level tokenizer as those of a longest-match one."""
    import gguf
    from transformers import AutoTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokenizer = AutoTokenizer.from_pretrained(model.dir_model)
    byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
    control = tokenizer.get_added_vocab()
    tokens, types = [], []
    for text, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        raw = text.encode() if text in control else bytes(byte_of[character] for character in text)
        # the escapes of Python's bytes are those that llama.cpp reads
        tokens.append((text if text in control else repr(raw)[2:-1]).encode())
        types.append(gguf.TokenType.CONTROL if text in control else gguf.TokenType.NORMAL)
    model.gguf_writer.add_tokenizer_model("rwkv")
    model.gguf_writer.add_token_list(tokens)
    model.gguf_writer.add_token_types(types)
    gguf.SpecialVocab(model.dir_model, load_merges=False).add_to_gguf(model.gguf_writer)


def main(script: str, *arguments: str) -> None:
    """Run the converter `script` with another `set_vocab`."""
    sys.path.insert(0, str(Path(script).parent))
    import convert_hf_to_gguf as converter  # first: a clone of llama.cpp finds its own gguf by it
    from conversion.llama import LlamaModel

    LlamaModel.set_vocab = set_vocab
    sys.argv = [script, *arguments]
    converter.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
