"""The texts that requests are made of."""

import pytest

from extproc.evaluation.options import EvaluationError
from extproc.evaluation.texts import read_bodies, read_texts

BUILT_IN = {"arabic", "base64", "chinese", "code", "csv", "english", "japanese", "json", "logs",
            "russian"}  # fmt: skip


def test_ten_classes_are_built_in_and_c_where_python_has_its_headers():
    assert {text.kind for text in read_texts(None, 0)} - {"c"} == BUILT_IN


def test_the_seed_decides_the_built_in_texts():
    assert read_texts(None, 1) == read_texts(None, 1)
    assert read_texts(None, 1) != read_texts(None, 2)


def test_a_folder_has_a_class_for_each_file(tmp_path):
    (tmp_path / "poem.txt").write_text("Owls\nsit still.\n")
    (text,) = read_texts(tmp_path, 0)
    assert (text.kind, text.text) == ("poem", "Owls\nsit still.\n")


def test_a_folder_without_texts_is_an_error(tmp_path):
    with pytest.raises(EvaluationError, match="holds no text files"):
        read_texts(tmp_path, 0)


def test_bodies_are_read_with_and_without_the_batch_wrapper(tmp_path):
    file = tmp_path / "requests.jsonl"
    file.write_text('{"prompt": "a"}\n\n{"custom_id": "1", "body": {"prompt": "b"}}\n')
    assert read_bodies(file, 10) == ({"prompt": "a"}, {"prompt": "b"})
    assert read_bodies(file, 1) == ({"prompt": "a"},)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", ":1 is not JSON"), ("[1]", ":1 is not a request"), ("", "has no requests")],
)
def test_a_file_that_holds_no_requests_is_an_error(tmp_path, text, message):
    file = tmp_path / "requests.jsonl"
    file.write_text(text)
    with pytest.raises(EvaluationError, match=message):
        read_bodies(file, 10)


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(EvaluationError, match=r"none\.jsonl"):
        read_bodies(tmp_path / "none.jsonl", 10)
