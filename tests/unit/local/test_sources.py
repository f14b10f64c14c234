import json
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.config.errors import UserError
from extproc.local import sources
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
    found = folder_sources(tmp_path)
    assert {source.kind: len(source.pieces) for source in found} == {"greek": 2, "latin": 1}


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no text files"):
        folder_sources(tmp_path)


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"ok \xff")
    with pytest.raises(UserError, match=r"x\.txt is not UTF-8 \(byte 3\)"):
        folder_sources(tmp_path)


def test_an_absent_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"absent does not exist$"):
        folder_sources(tmp_path / "absent")


def test_a_large_file_is_cut_and_may_be_cut_within_a_character(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_MAX_FILE_BYTES", 4)
    (tmp_path / "x.txt").write_text("abcé more", encoding="utf-8")
    (source,) = folder_sources(tmp_path)
    assert source.pieces == ("abc",)


def test_a_file_that_ends_within_a_character_is_not_utf8(tmp_path):
    (tmp_path / "x.txt").write_bytes("abcé".encode()[:-1])
    with pytest.raises(UserError, match=r"x\.txt is not UTF-8 \(byte 3\)"):
        folder_sources(tmp_path)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "x.txt").write_text("text")

    def refuse(*_arguments: object) -> None:
        raise PermissionError("x.txt is locked")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"--texts: x\.txt is locked"):
        folder_sources(tmp_path)


def test_without_pythons_source_the_option_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path))
    with pytest.raises(UserError, match="use --texts DIR"):
        built_in_sources(0)


def test_long_lines_are_cut_into_sentences_and_short_ones_kept():
    prose = "A sentence of some length. " * 6
    assert len(split(prose)) == 6
    assert split("a = 1. b = 2.\n") == ("a = 1. b = 2.\n",)


def test_every_record_is_a_line_of_json():
    (records,) = (source for source in built_in_sources(0) if source.kind == "json")
    assert all(isinstance(json.loads(piece.removesuffix(",\n")), dict) for piece in records.pieces)
