"""The kinds of text in simulated prompts: a measured table.

Each figure is the mean over 200 pieces of 400 tokens of the built-in texts of `dualpool evaluate`,
by the vocabulary o200k_base: UTF-8 bytes per token, and features (`features.TEXT_FEATURES`) per
token, without those below 0.002. A test repeats the measurement.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class TextKind:
    """One kind of text."""

    name: str
    share: float
    """Share of the requests; assumed, for a fleet that serves people and programs alike."""
    bytes_per_token: float
    spread: float
    """Standard deviation of the logarithm of bytes per token; at least .05, since texts of one kind
    differ more than the parts of one text (three English texts: 4.4, 4.4 and 3.9 bytes per
    token)."""
    rates: Mapping[str, float]
    """Features per token."""


KINDS: Final = (
    TextKind(
        name="english", share=0.45, bytes_per_token=4.56, spread=0.05,
        rates={
            "words": 0.866, "punct_runs": 0.106, "lower": 3.514, "upper": 0.056,
            "digit_digit": 0.008, "space_digit": 0.004, "space_upper": 0.046,
            "newlines_tabs": 0.018, "newline_runs": 0.009,
            "rare_letters": 0.048, "sign_newline": 0.009,
            "vowel_consonant": 0.936, "upper_space": 0.004,
            "token_starts": 1.205, "token_doubts": 0.18,
        },
    ),
    TextKind(
        name="code", share=0.17, bytes_per_token=4.54, spread=0.13,
        rates={
            "words": 0.546, "punct_runs": 0.339, "lower": 2.41, "upper": 0.12,
            "camel_or_mixed": 0.014, "digit_digit": 0.01, "space_digit": 0.009,
            "punct_digit": 0.005, "space_upper": 0.035, "upper_punct": 0.005,
            "punct_bracket": 0.008, "bracket_punct": 0.009, "bracket_newline": 0.063,
            "space_punct": 0.084, "punct_punct": 0.149, "space_space": 0.909,
            "newlines_tabs": 0.12, "newline_runs": 0.102,
            "rare_letters": 0.029, "upper_bracket": 0.005, "digit_bracket": 0.01,
            "space_sign": 0.059, "newline_sign": 0.004, "sign_newline": 0.011,
            "lower_digit": 0.003,
            "vowel_consonant": 0.684, "stars": 0.024, "upper_space": 0.004,
            "token_starts": 1.116, "token_doubts": 0.23,
        },
    ),
    TextKind(
        name="json", share=0.1, bytes_per_token=2.38, spread=0.05,
        rates={
            "words": 0.339, "punct_runs": 0.518, "lower": 0.825, "upper": 0.028,
            "camel_or_mixed": 0.034, "digit_digit": 0.323, "digit_upper": 0.009,
            "space_digit": 0.058, "punct_digit": 0.063, "upper_punct": 0.014,
            "bracket_newline": 0.014, "space_punct": 0.165, "punct_punct": 0.275,
            "newlines_tabs": 0.014, "newline_runs": 0.014,
            "rare_letters": 0.044, "upper_bracket": 0.004, "digit_bracket": 0.094,
            "lower_digit": 0.011,
            "vowel_consonant": 0.235,
            "token_starts": 1.076, "token_doubts": 0.235,
        },
    ),
    TextKind(
        name="chinese", share=0.08, bytes_per_token=3.68, spread=0.05,
        rates={
            "words": 0.002, "han_kana": 1.215, "kana": 0.126, "indic": 0.005,
            "non_ascii_runs": 0.011, "digit_digit": 0.006, "newlines_tabs": 0.015,
            "newline_runs": 0.008,
            "token_starts": 1.391, "token_doubts": 0.443,
        },
    ),
    TextKind(
        name="logs", share=0.05, bytes_per_token=2.48, spread=0.05,
        rates={
            "words": 0.472, "punct_runs": 0.236, "lower": 1.059, "upper": 0.119,
            "camel_or_mixed": 0.147, "digit_digit": 0.469, "space_digit": 0.055,
            "punct_digit": 0.072, "space_upper": 0.027, "space_punct": 0.027,
            "newlines_tabs": 0.028, "newline_runs": 0.027,
            "rare_letters": 0.039, "digit_bracket": 0.082, "lower_digit": 0.073,
            "vowel_consonant": 0.294, "upper_space": 0.027,
            "token_starts": 1.022, "token_doubts": 0.264,
        },
    ),
    TextKind(
        name="russian", share=0.04, bytes_per_token=6.4, spread=0.05,
        rates={
            "words": 0.007, "punct_runs": 0.12, "indic": 0.01, "greek_cyrillic": 2.838,
            "non_ascii_runs": 0.543, "latin_accents": 0.004, "digit_digit": 0.008,
            "space_digit": 0.006, "newlines_tabs": 0.016, "newline_runs": 0.008,
            "digit_bracket": 0.003, "sign_newline": 0.008,
            "token_starts": 1.406, "token_doubts": 0.445,
        },
    ),
    TextKind(
        name="c", share=0.03, bytes_per_token=3.93, spread=0.13,
        rates={
            "words": 0.546, "punct_runs": 0.365, "lower": 1.952, "upper": 0.625,
            "camel_or_mixed": 0.073, "digit_digit": 0.02, "space_digit": 0.023,
            "punct_digit": 0.004, "space_upper": 0.078, "upper_punct": 0.058,
            "punct_bracket": 0.012, "bracket_punct": 0.006, "bracket_newline": 0.027,
            "space_punct": 0.089, "punct_punct": 0.126, "space_space": 0.277,
            "newlines_tabs": 0.116, "newline_runs": 0.09,
            "rare_letters": 0.041, "upper_bracket": 0.02, "digit_bracket": 0.005,
            "space_sign": 0.076, "newline_sign": 0.049, "sign_newline": 0.031,
            "lower_digit": 0.005,
            "vowel_consonant": 0.533, "stars": 0.112, "upper_space": 0.02,
            "token_starts": 1.166, "token_doubts": 0.265,
        },
    ),
    TextKind(
        name="japanese", share=0.03, bytes_per_token=3.81, spread=0.05,
        rates={
            "han_kana": 1.264, "kana": 0.87, "non_ascii_runs": 0.009, "newlines_tabs": 0.014,
            "newline_runs": 0.007,
            "token_starts": 1.339, "token_doubts": 0.465,
        },
    ),
    TextKind(
        name="csv", share=0.02, bytes_per_token=1.75, spread=0.05,
        rates={
            "words": 0.426, "punct_runs": 0.393, "lower": 0.131, "upper": 0.033,
            "digit_digit": 0.764, "punct_digit": 0.197, "newlines_tabs": 0.033,
            "newline_runs": 0.033,
            "rare_letters": 0.011, "digit_bracket": 0.163,
            "vowel_consonant": 0.028,
            "token_starts": 1.076, "token_doubts": 0.258,
        },
    ),
    TextKind(
        name="arabic", share=0.02, bytes_per_token=5.68, spread=0.05,
        rates={
            "punct_runs": 0.036, "semitic": 2.531, "non_ascii_runs": 0.564,
            "latin_accents": 0.002, "digit_digit": 0.003, "newlines_tabs": 0.018,
            "newline_runs": 0.009,
            "sign_newline": 0.009,
            "token_starts": 1.453, "token_doubts": 0.397,
        },
    ),
    TextKind(
        name="base64", share=0.01, bytes_per_token=1.56, spread=0.05,
        rates={
            "words": 0.073, "punct_runs": 0.058, "lower": 0.675, "upper": 0.578,
            "camel_or_mixed": 0.591, "digit_digit": 0.036, "digit_upper": 0.09,
            "punct_digit": 0.007, "upper_punct": 0.018, "bracket_newline": 0.002,
            "newlines_tabs": 0.004, "newline_runs": 0.004,
            "rare_letters": 0.091, "digit_bracket": 0.002, "lower_digit": 0.091,
            "vowel_consonant": 0.06, "stars": 0.022,
            "token_starts": 0.757, "token_doubts": 0.232,
        },
    ),
)  # fmt: skip
