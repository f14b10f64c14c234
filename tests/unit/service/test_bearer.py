"""The bearer token of the HTTP side."""

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
    assert f"{file}: cannot be read" in caplog.text


def test_a_file_that_cannot_be_read_is_named_with_the_fix(tmp_path):
    with pytest.raises(TokenError, match="/none: cannot be read: No such file or directory; use"):
        BearerToken(tmp_path / "none")


def test_an_empty_file_permits_nobody(tmp_path):
    (tmp_path / "token").write_text(" \n")
    with pytest.raises(TokenError, match="/token: holds no token; write one into it"):
        BearerToken(tmp_path / "token")
