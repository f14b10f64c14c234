"""The weights before anything is learnt: tokens for each feature, measured on eleven tokenizers.

For each tokenizer, non-negative least squares of the relative error over texts of 36 kinds (prose
in 22 languages, code, markup, JSON, CSV, logs, base64, chats with tools, emoji). The table has the
mean and the standard deviation over the tokenizers: Qwen 2.5 and 3.5, Llama 2 and 3, Gemma 3,
gpt-oss, DeepSeek LLM and V3, GLM-4, MiniMax M1, JiuTian. The weights of templates come from
published templates, those of images from the formulas of fifteen image processors over common sizes
(Qwen-VL with several limits, Gemma 3, LLaVA, LLaVA-NeXT, InternVL, Pixtral, Llama 4 and others),
all with wide deviations.

Of the tokens of text, the count of token starts gives seven tenths: six tenths of it, since it is
too large by a sixth. The other counts give three tenths of what was measured for them alone, with
six tenths of its deviation.
"""

from typing import Final

from extproc.budget.features import FEATURES
from extproc.budget.weights import Prior

_TOKENS: Final[dict[str, tuple[float, float]]] = {
    "request": (10.0, 40.0),
    "messages": (4.0, 4.0),
    "tools": (10.0, 10.0),
    "any_tool": (80.0, 100.0),
    "images": (250.0, 400.0),
    "image_patches": (0.15, 0.4),
    "image_patches_640": (0.1, 0.65),
    "image_patches_1280": (0.3, 0.8),
    "image_patches_2560": (0.0, 0.8),
    "image_patches_5120": (0.0, 0.8),
    "image_patches_1024px": (0.3, 0.8),
    "image_tiles": (15.0, 120.0),
    "image_anyres": (0.0, 0.8),
    "stated_images": (3.0, 30.0),
    # A frame of a video costs about as much as an image; vLLM samples 32 (media/video.py), two of
    # which make the tokens of one image in the common models.
    "unsized_images": (1400.0, 1200.0),
    "audios": (1000.0, 1500.0),
    "videos": (16_000.0, 16_000.0),
    # Shares of what is rendered. vLLM 0.32 gives schemas to the grammar alone, most templates drop
    # earlier reasoning, few know documents, all render tools whatever tool_choice says.
    "schema": (0.0, 0.25),
    "past_reasoning": (0.2, 0.5),
    "documents": (0.2, 0.5),
    "unused_tools": (0.9, 0.5),
    "template_arguments": (0.1, 0.4),
    "words": (0.0981, 0.19),
    "punct_runs": (0.228, 0.1),
    "han_kana": (0.186, 0.11),
    "kana": (0.0492, 0.18),
    "hangul": (0.241, 0.28),
    "astral": (0.296, 0.34),
    "indic": (0.243, 0.24),
    "semitic": (0.169, 0.17),
    "greek_cyrillic": (0.103, 0.09),
    "non_ascii_runs": (0.216, 0.29),
    "latin_accents": (0.205, 0.35),
    "lower": (0.0495, 0.047),
    "upper": (0.0702, 0.052),
    "camel_or_mixed": (0.231, 0.12),
    "digit_digit": (0.228, 0.22),
    "digit_upper": (0.744, 0.59),
    "space_digit": (0.765, 0.41),
    "punct_digit": (0.289, 0.22),
    "space_upper": (0.187, 0.14),
    "upper_punct": (0.0321, 0.11),
    "punct_bracket": (0.0399, 0.096),
    "bracket_punct": (0.275, 0.22),
    "bracket_newline": (0.0204, 0.09),
    "space_punct": (0.0624, 0.11),
    "punct_punct": (0.0275, 0.037),
    "space_space": (0.0441, 0.17),
    "newlines_tabs": (0.0203, 0.1),
    "newline_runs": (0.24, 0.23),
    # These part what the counts above hold together. The means of those include them; the
    # deviations were from fits for four of the tokenizers on 30 kinds of text, the last four from
    # others on 76 kinds.
    "rare_letters": (0.0, 0.72),
    "latin_extended": (0.0, 0.6),
    "vietnamese": (0.0, 0.9),
    "word_typographic": (0.0, 0.9),
    "upper_bracket": (0.0, 0.9),
    "digit_bracket": (0.0, 0.3),
    "space_sign": (0.0, 0.18),
    "newline_sign": (0.0, 0.42),
    "sign_newline": (0.0, 0.24),
    "lower_digit": (0.0, 0.42),
    "vowel_consonant": (0.0, 0.09),
    "stars": (0.0, 0.18),
    "upper_space": (0.0, 0.6),
    "greek": (0.0, 0.3),
    "token_starts": (0.6, 0.2),
    "token_doubts": (0.0, 0.2),
}

MEASURED: Final = Prior(
    mean=tuple(_TOKENS[name][0] for name in FEATURES),
    deviation=tuple(_TOKENS[name][1] for name in FEATURES),
)
