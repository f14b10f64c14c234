import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.local.children import StackError
from extproc.local.sources import built_in_sources, folder_sources, split


def test_seven_kinds_are_built_in():
    kinds = {source.kind for source in built_in_sources(0)}
    assert kinds == {"arabic", "chinese", "code", "english", "japanese", "json", "russian"}


def test_each_built_in_text_has_3_kb_and_many_pieces():
    for source in built_in_sources(0):
        assert len("".join(source.pieces).encode()) >= 3000
        assert len(source.pieces) >= 40


def test_the_seed_decides_the_records():
    assert built_in_sources(1) == built_in_sources(1)
    assert built_in_sources(1) != built_in_sources(2)


@given(st.text(st.sampled_from("ab .!?。\n»\r"), max_size=400))
def test_pieces_are_the_text(text):
    assert "".join(split(text)) == text


def test_a_folder_gives_a_kind_for_each_file_and_subfolder(tmp_path):
    (tmp_path / "latin.txt").write_text("Gallia est omnis divisa.\n")
    (tmp_path / "greek").mkdir()
    (tmp_path / "greek" / "a.txt").write_text("Μῆνιν ἄειδε θεά\n", encoding="utf-8")
    (tmp_path / "greek" / "b.txt").write_text("Ἄνδρα μοι ἔννεπε\n", encoding="utf-8")
    sources = folder_sources(tmp_path)
    assert {source.kind: len(source.pieces) for source in sources} == {"greek": 2, "latin": 1}


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(StackError, match="holds no text files"):
        folder_sources(tmp_path)


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"ok \xff")
    with pytest.raises(StackError, match=r"x\.txt is not UTF-8 \(byte 3\)"):
        folder_sources(tmp_path)


def test_an_absent_folder_is_refused(tmp_path):
    with pytest.raises(StackError, match="holds no text files"):
        folder_sources(tmp_path / "absent")
