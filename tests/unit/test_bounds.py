"""The bounds of what is read and kept, each with the reason that its module gives.

A bound that changes must change here too: none changes by accident.
"""

import importlib

import pytest

BOUNDS = {
    "budget.bounded.IDLE": 32,
    "budget.calibrated.CALIBRATED_FROM": 50,
    "budget.calibrated.MODELS": 64,
    "budget.category.LABEL_CHARS": 96,
    "budget.category.NAME_CHARS": 256,
    "budget.lengths.MOST_OUTPUT_TOKENS": 1 << 18,
    "budget.lengths.MOST_PROMPT_TOKENS": 1 << 24,
    "budget.sketch.BORROWED": 30.0,
    "budget.weights.BAND": 2.5,
    "budget.weights.BAND_TOKENS": 1000.0,
    "budget.weights.CLIP": 4.0,
    "budget.weights.SURPRISE": 3.0,
    "budget.weights.SURPRISED_WALK": 3e-2,
    "encoding.MAX_CODINGS": 2,
    "encoding.MAX_FRAMES": 1024,
    "encoding.PIECE_BYTES": 64 << 10,
    "request.fields.MAX_NODES": 32_768,
    "request.image.HEAD_CHARS": 64 << 10,
    "request.image.MAX_SIDE": 65_535,
    "request.prompt.MAX_IMAGES": 256,
    "request.prompts.MAX_OBJECTS": 1024,
    "request.reader.MAX_BODY_BYTES": 64 << 20,
    "request.reader.MAX_DECODED_BYTES": 1 << 20,
    "request.reader.MAX_MODEL_CHARS": 256,
    "request.reader.MAX_OUTPUTS": 16_384,
    "request.sample.SAMPLE_BYTES": 16 << 10,
    "response.reader.MAX_DOCUMENT_BYTES": 8 << 20,
    "response.sse.MAX_LINE_BYTES": 1 << 20,
    "stream.session.CHUNK_BYTES": 62_000,
    "tokens.MAX_TOKENS": 2**31 - 1,
}


@pytest.mark.parametrize(("name", "value"), BOUNDS.items())
def test_a_bound_is_what_it_is_said_to_be(name, value):
    module, _, constant = name.rpartition(".")
    assert getattr(importlib.import_module(f"extproc.{module}"), constant) == value
