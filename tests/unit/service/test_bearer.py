"""The bearer token of the HTTP side."""

from pathlib import Path

import pytest

from extproc.service.bearer import BearerToken, TokenError


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "token"
    path.write_text("s\u00e9cret\n")
    return path


@pytest.mark.parametrize("given", ["Bearer s\u00e9cret", "bearer  s\u00e9cret "])
def test_the_token_is_permitted(file, given):
    assert BearerToken(file).permits(given)


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer ", "s\u00e9cret", "Basic s\u00e9cret", "Bearer s", "Bearer \udcff"],
)
def test_nothing_else_is(file, given):
    assert not BearerToken(file).permits(given)


def test_a_renewed_token_replaces_the_old_one(file):
    token = BearerToken(file)
    file.write_text("new")
    assert token.permits("Bearer new")
    assert not token.permits("Bearer s\u00e9cret")


def test_without_its_file_nothing_is_permitted(file, caplog):
    token = BearerToken(file)
    file.unlink()
    assert not token.permits("Bearer s\u00e9cret")
    assert "the file of the token for listen.http_token_file does not exist" in caplog.text


def test_a_file_that_cannot_be_read_is_named_with_the_fix(tmp_path):
    with pytest.raises(TokenError, match=f"{tmp_path}: cannot be read: Is a directory; use a file"):
        BearerToken(tmp_path)


@pytest.mark.parametrize("stated", ["/s3cret", "/etc/passwd/s3cret", "/" + "s3cret" * 50])
def test_a_secret_in_place_of_its_path_is_not_told(stated):
    with pytest.raises(TokenError) as error:
        BearerToken(Path(stated))
    assert "s3cret" not in str(error.value)
    assert "does not exist; write it into a file" in str(error.value)


def test_an_empty_file_permits_nobody(tmp_path):
    (tmp_path / "token").write_text(" \n")
    told = "/token: holds no token for listen.http_token_file; write one into it"
    with pytest.raises(TokenError, match=told):
        BearerToken(tmp_path / "token")
