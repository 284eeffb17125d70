"""Texts to the token ids that the network reads.

Public input: `text` BYTES [n], UTF-8. Public output: `embedding` FP32 [n, 384], unit length, which is the
graph's own. Graph inputs: `input_ids` and `attention_mask` INT64 [n, longest]; shorter texts are padded, and
the mask is 0 there.

The tokenizer is the model's own, lower-casing WordPiece. A text longer than the model is made for (256
tokens, about 200 English words) is cut there, as sentence-transformers does, and embedded by its beginning.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

Arrays = dict[str, NDArray[Any]]

# Attention takes memory for every pair of tokens: about 15 MB for a text of full length.
MAX_TEXTS = 64
# Tokenizing megabytes to keep 256 tokens takes seconds. English has 5 characters to a token; this allows 32.
MAX_CHARACTERS = 8192


def load(folder: Path) -> Tokenizer:
    """The tokenizer. It is only read from here on, so that threads can share it."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = json.loads((folder / "sentence_bert_config.json").read_bytes())
    # The file asks for 128 tokens, always: a setting of the training, not of the model.
    tokenizer.enable_truncation(config["max_seq_length"])
    tokenizer.enable_padding()
    return tokenizer


def preprocess(inputs: Arrays, tokenizer: Tokenizer) -> Arrays:
    """Tokenize.

    Raises:
        ValueError: there are more than MAX_TEXTS texts, or one is not UTF-8.
    """
    texts = inputs["text"]
    if len(texts) > MAX_TEXTS:
        raise ValueError(f"text holds {len(texts)} texts; send at most {MAX_TEXTS} in one request")
    encodings = tokenizer.encode_batch_fast([_beginning(index, text) for index, text in enumerate(texts)])
    return {
        "input_ids": np.array([encoding.ids for encoding in encodings], np.int64),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings], np.int64),
    }


def _beginning(index: int, text: bytes) -> str:
    try:
        return text.decode()[:MAX_CHARACTERS]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"text[{index}] is not UTF-8: byte {error.start} is 0x{text[error.start]:02x}"
        ) from None
