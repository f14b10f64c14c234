"""tokenizer.json files that count the text of prompts."""

import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from extproc.build import build_rules, tokenizer_faults
from extproc.cli import main
from extproc.config.errors import UserError
from extproc.config.settings import ModelSettings, Settings
from extproc.tokenizer_file import TokenizerFileError, count_tokens, open_tokenizer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = Tokenizer(WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    made.pre_tokenizer = Whitespace()
    made.enable_truncation(2)
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def settings(file: Path) -> Settings:
    return Settings(models=(ModelSettings(name="m*", tokenizer=str(file)),))


def test_all_tokens_of_a_text_are_counted(file):
    assert count_tokens(open_tokenizer(file), "a b c a b") == 5


def test_a_file_is_opened_again_once_it_is_another_one(file):
    before = open_tokenizer(file)
    assert open_tokenizer(file) is before
    made = Tokenizer(WordLevel({"a b": 0, "?": 1}, unk_token="?"))
    made.save(str(file))
    assert count_tokens(open_tokenizer(file), "a b c a b") == 1
    file.unlink()
    with pytest.raises(TokenizerFileError, match="No such file"):
        open_tokenizer(file)


def test_the_rules_have_the_tokenizer_of_a_model(file):
    rules = build_rules(settings(file))
    (rule,) = rules.models
    assert rule.count("a b") == 2
    assert rules.count_bytes == 16_384
    assert not list(tokenizer_faults(settings(file)))


def test_without_a_tokenizer_nothing_is_counted():
    rules = build_rules(Settings(models=(ModelSettings(name="m"),)))
    assert rules.models[0].count is None
    assert not rules.count_bytes


def test_a_missing_file_is_one_fault(tmp_path):
    absent = tmp_path / "absent.json"
    with pytest.raises(UserError, match=r"dualpool: models\[0\]\.tokenizer: /.*absent.json: "):
        build_rules(settings(absent))


def test_a_file_of_something_else_is_named(tmp_path):
    file = tmp_path / "vocab.json"
    file.write_text('{"a": 0}')
    with pytest.raises(TokenizerFileError, match=r"vocab.json: is no tokenizer.json of Hugging"):
        open_tokenizer(file)


def test_a_missing_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(TokenizerFileError, match=r"needs the package tokenizers: run pip install"):
        open_tokenizer(tmp_path / "any.json")


@pytest.mark.parametrize("command", [("check",), ("explain", "body.json", "--config")])
def test_the_line_of_a_tokenizer_that_cannot_be_used_is_named(command, tmp_path, capsys):
    config = tmp_path / "dualpool.yaml"
    config.write_text(f"models:\n  - {{name: m, tokenizer: {tmp_path}/absent.json}}\n")
    assert main([*command, str(config)]) == 2
    assert f"{config}:2: models[0].tokenizer: {tmp_path}/absent.json: " in capsys.readouterr().err
