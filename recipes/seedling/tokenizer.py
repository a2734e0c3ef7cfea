"""The seedling's tokenizer: a byte-level BPE trained on its own text, with Qwen's special tokens.

Every byte has a token, so any text can be written and comes back unchanged; a digit is never
merged with anything, so that numbers are copied digit by digit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY: Final = 2048
"""Tokens in all, the 256 bytes and the special ones included."""

CONTEXT: Final = 2048
"""The longest sequence in tokens that the model may be given."""

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CONTROL: Final = (PAD, START, END)
MARKS: Final = (
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
)  # fmt: skip
"""One token each, as in Qwen's vocabulary, and not special: they are part of what a model says."""

# A word may take the one sign before it along (a space, a quote); a digit stands alone.
PIECES: Final = "|".join(
    (
        r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+",
        r"\p{N}",
        r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)

KEPT: Final = "年月日元€£¥，。：？！“”«»„äöüßÄÖÜáéíóúñ¿¡àâçèêëîïôùûœÉÀ\u00a0\u202f"
"""Characters that get a token of their own however rare they are in the text."""


def train(texts: Iterable[str], template: str) -> PreTrainedTokenizerFast:
    """Learns :data:`VOCABULARY` tokens from ``texts``."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(CONTROL) - len(MARKS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Each kept character alone and often: the trainer merges its bytes first.
    tokenizer.train_from_iterator([*texts, *(list(KEPT) * 20_000)], trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in CONTROL])
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in MARKS])
    fast: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=[START],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = template
    return fast
