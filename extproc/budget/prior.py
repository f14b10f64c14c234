"""The weights before anything is learnt: tokens for each feature, measured on eleven tokenizers.

For each tokenizer, non-negative least squares of the relative error over texts of 36 kinds (prose
in 22 languages, code, markup, JSON, CSV, logs, base64, chats with tools, emoji). The table has the
mean and the standard deviation over the tokenizers: Qwen 2.5 and 3.5, Llama 2 and 3, Gemma 3,
gpt-oss, DeepSeek LLM and V3, GLM-4, MiniMax M1, JiuTian. The weights of templates come from
published templates, those of images from the formulas of fifteen image processors over common sizes
(Qwen-VL with several limits, Gemma 3, LLaVA, LLaVA-NeXT, InternVL, Pixtral, Llama 4 and others),
all with wide deviations.
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
    "words": (0.327, 0.31),
    "punct_runs": (0.76, 0.17),
    "han_kana": (0.62, 0.18),
    "kana": (0.164, 0.3),
    "hangul": (0.802, 0.46),
    "astral": (0.987, 0.56),
    "indic": (0.809, 0.4),
    "semitic": (0.564, 0.29),
    "greek_cyrillic": (0.342, 0.15),
    "non_ascii_runs": (0.721, 0.49),
    "latin_accents": (0.684, 0.58),
    "lower": (0.165, 0.079),
    "upper": (0.234, 0.086),
    "camel_or_mixed": (0.769, 0.2),
    "digit_digit": (0.761, 0.36),
    "digit_upper": (2.48, 0.99),
    "space_digit": (2.55, 0.69),
    "punct_digit": (0.964, 0.37),
    "space_upper": (0.622, 0.23),
    "upper_punct": (0.107, 0.19),
    "punct_bracket": (0.133, 0.16),
    "bracket_punct": (0.916, 0.37),
    "bracket_newline": (0.0679, 0.15),
    "space_punct": (0.208, 0.19),
    "punct_punct": (0.0918, 0.061),
    "space_space": (0.147, 0.28),
    "newlines_tabs": (0.0677, 0.17),
    "newline_runs": (0.799, 0.38),
    # These part what the counts above hold together. The means of those include them; the
    # deviations are from fits for four of the tokenizers on 30 kinds of text, the last four from
    # others on 76 kinds.
    "rare_letters": (0.0, 1.2),
    "latin_extended": (0.0, 1.0),
    "vietnamese": (0.0, 1.5),
    "word_typographic": (0.0, 1.5),
    "upper_bracket": (0.0, 1.5),
    "digit_bracket": (0.0, 0.5),
    "space_sign": (0.0, 0.3),
    "newline_sign": (0.0, 0.7),
    "sign_newline": (0.0, 0.4),
    "lower_digit": (0.0, 0.7),
    "vowel_consonant": (0.0, 0.15),
    "stars": (0.0, 0.3),
    "upper_space": (0.0, 1.0),
    "greek": (0.0, 0.5),
}

MEASURED: Final = Prior(
    mean=tuple(_TOKENS[name][0] for name in FEATURES),
    deviation=tuple(_TOKENS[name][1] for name in FEATURES),
)
