"""Settings files: what is read, what is refused and in which words."""

import os
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from extproc.config.keys import Section
from extproc.config.load import ConfigError, Settings, load, load_row, render
from extproc.config.settings import (
    BudgetSettings,
    CategorySettings,
    ListenSettings,
    LogLevel,
    ModelSettings,
    PoolSettings,
    RequestSettings,
)
from tests.support.paths import DATA

BROKEN = DATA / "configs"
MAX_TOKENS = 16_777_216


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("config") / "dualpool.yaml"


def read(file, text):
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(file)


def faults(file, text):
    with pytest.raises(ConfigError) as caught:
        read(file, text)
    return [line.removeprefix(f"{file}:") for line in str(caught.value).split("\n")]


# Broken files


@pytest.mark.parametrize("name", sorted(path.stem for path in BROKEN.glob("*.yaml")))
def test_a_broken_file_is_refused_in_these_words(name, monkeypatch):
    monkeypatch.chdir(BROKEN)
    with pytest.raises(ConfigError) as caught:
        load(Path(f"{name}.yaml"))
    assert f"{caught.value}\n" == Path(f"{name}.txt").read_text()


def test_a_missing_file_is_named(file):
    missing = file.with_name("missing.yaml")
    with pytest.raises(ConfigError) as caught:
        load(missing)
    assert str(caught.value) == f"{missing}: cannot be read: No such file or directory"


def test_a_pipe_is_no_file_and_blocks_nothing(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="pipe: is no regular file; write the settings into one"):
        load(tmp_path / "pipe")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_file(device):
    with pytest.raises(ConfigError, match="is no regular file"):
        load(Path(device))


def test_a_directory_is_no_file(file):
    with pytest.raises(ConfigError, match="is no regular file"):
        load(file.parent)


def test_a_file_of_any_length_is_not_read_to_its_end(file):
    with file.open("wb") as opened:
        opened.truncate(1 << 40)
    with pytest.raises(ConfigError, match=r"larger than 1048576 bytes$"):
        load(file)


def test_a_file_of_one_mebibyte_is_read(file):
    assert read(file, "{}#".ljust(1 << 20)) == Settings()
    assert faults(file, "{}#".ljust((1 << 20) + 1)) == [" larger than 1048576 bytes"]


def test_a_flat_file_of_many_values_is_refused(file):
    assert "or 10000 values" in faults(file, "pools: [" + "0, " * 10_000 + "]")[0]


def test_a_long_text_behind_many_aliases_costs_no_copy(file):
    text = f"a: &a '{'z' * 100_000}'\nb: [{'*a, ' * 4_000}]\n"
    assert [line.split(";")[0] for line in faults(file, text)] == [
        "1: unknown key 'a'",
        "2: unknown key 'b'",
    ]


def test_a_file_name_is_given_as_the_caller_wrote_it(file, monkeypatch):
    file.write_text("workers: 0")
    monkeypatch.chdir(file.parent)
    with pytest.raises(ConfigError, match=r"^dualpool\.yaml:1: workers: 0 is not allowed: "):
        load(Path("dualpool.yaml"))


# What is read


def test_no_file_is_a_short_and_a_long_pool():
    assert [(pool.name, pool.max_model_len) for pool in load(None).pools] == [
        ("short", 8192),
        ("long", 65536),
    ]


@pytest.mark.parametrize("text", ["{}", "# the defaults\n{}\n", "budget:"])
def test_a_mapping_without_values_is_the_defaults(file, text):
    assert read(file, text) == Settings()


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n", "---\n", "~", "\ufeff"])
def test_a_file_without_settings_is_refused(file, text):
    assert faults(file, text) == [" holds no settings; for the defaults write {}"]


def test_a_section_left_empty_is_its_defaults(file):
    assert read(file, "listen:\nbudget:\n  # beta: 0.9\ncategories: ~\n") == Settings()


def test_a_key_left_out_is_its_default(file):
    assert read(file, "budget: {beta: 0.9}").budget == BudgetSettings(beta=0.9)


def test_a_pool_without_a_threshold_is_given_all_that_fits(file):
    short, long = read(file, POOLS).pools
    assert (short.threshold, long.threshold) == (8192, 65536)


POOLS = "pools: [{name: short, max_model_len: 8192}, {name: long, max_model_len: 65536}]"


@pytest.mark.parametrize("count", [1, 3, 16])
def test_pools_stand_in_a_row_of_1_to_16(file, count):
    pools = [{"name": f"p{n}", "max_model_len": 4096 * (n + 1)} for n in range(count)]
    assert len(read(file, yaml.safe_dump({"pools": pools})).pools) == count


def test_an_anchor_is_read_where_it_is_named(file):
    text = "pools: [{name: a, max_model_len: &n 8192}, {name: b, max_model_len: 9000}]\nbudget:\n"
    assert read(file, text + "  default_output_tokens: *n\n").budget.default_output_tokens == 8192


@pytest.mark.parametrize("name", ["no", "on", "0x10", "1e", "2026-01-01", "null-1"])
def test_text_that_yaml_1_1_takes_for_something_else_stays_text(file, name):
    assert read(file, f"pools: [{{name: {name}, max_model_len: 8192}}]").pools[0].name == name


@pytest.mark.parametrize(("text", "value"), [("1", 1.0), (".5", 0.5), ("+1.", 1.0), ("2e-1", 0.2)])
def test_a_number_may_be_written_in_several_ways(file, text, value):
    assert read(file, f"budget: {{gamma: {text}}}").budget.gamma == value


@pytest.mark.parametrize("address", ["[::1]:0", "pool-1.local:65535", "unix:/run/dualpool.sock"])
def test_an_address_may_be(file, address):
    assert read(file, f"listen: {{grpc: '{address}'}}").listen.grpc == address


@pytest.mark.parametrize("header", ["x-tenant", "authorization-class", "cookies", "x-llm", ""])
def test_a_category_header_may_be(file, header):
    assert read(file, f"categories: {{header: '{header}'}}").categories.header == header


@pytest.mark.parametrize("header", ["x-tenant", "authorization", "x-api-key", "cookies", ""])
def test_a_tenant_header_may_be(file, header):
    assert read(file, f"tenants: {{header: '{header}'}}").tenants.header == header


def test_a_port_of_0_needs_no_ports_beside_it(file):
    settings = read(file, "workers: 256\nlisten: {grpc: '127.0.0.1:0', http: '127.0.0.1:0'}")
    assert settings.workers == 256


def test_the_last_socket_path_may_have_107_bytes(file):
    path = "/run/" + "d" * 100
    assert read(file, f"workers: 2\nlisten: {{grpc: 'unix:{path}'}}").workers == 2


# What is written


def keys(section, path=()):
    for key, value in section:
        yield (*path, key), type(section).model_fields[key]
        if isinstance(value, Section):
            yield from keys(value, (*path, key))


@pytest.mark.parametrize(("path", "field"), list(keys(Settings())), ids=str)
def test_render_says_what_each_key_is(path, field):
    indent = "  " * (len(path) - 1)
    lines = [line for line in render(Settings()).splitlines() if line.endswith(field.description)]
    assert any(line.startswith(f"{indent}{path[-1]}:") for line in lines)


def test_render_says_what_each_key_of_a_pool_is():
    for field in PoolSettings.model_fields.values():
        assert f"# {field.description}\n" in render(Settings())


def test_render_fits_the_page():
    assert max(map(len, render(Settings()).splitlines())) <= 100


def test_render_gives_the_last_pool_no_threshold():
    assert render(Settings()).count("threshold: ") == 1


def whole(low, high):
    return st.integers(low, high)


def hosts(port):
    return st.sampled_from(["127.0.0.1", "[::1]", "0.0.0.0", "envoy-1.local"]).map(
        lambda host: f"{host}:{port}"
    )


@st.composite
def rows_of_pools(draw):
    windows = sorted(draw(st.sets(whole(1, MAX_TOKENS), min_size=1, max_size=16)))
    names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
    names = draw(st.lists(names, min_size=len(windows), max_size=len(windows), unique=True))
    thresholds = [draw(whole(low + 1, high)) for low, high in pairwise([0, *windows[:-1]])]
    # Each at most its own window and above the window before it, so ascending.
    return tuple(
        PoolSettings(name=name, max_model_len=window, threshold=threshold)
        for name, window, threshold in zip(names, windows, [*thresholds, windows[-1]], strict=True)
    )


paths = st.from_regex(r"unix:/[A-Za-z0-9_.,@+=~/-]{0,90}[a-z]", fullmatch=True)
settings = st.builds(
    Settings,
    listen=st.builds(
        ListenSettings,
        grpc=st.one_of(whole(1024, 65280).flatmap(hosts), paths),
        http=st.one_of(whole(0, 1023), whole(65536 - 1, 65535)).flatmap(hosts),
        max_message_bytes=whole((1 << 29) + 1024, 1 << 30),
        drain_s=whole(0, 3600),
    ),
    workers=whole(1, 255),
    pools=rows_of_pools(),
    models=st.lists(
        st.builds(
            ModelSettings,
            name=st.from_regex(r"[a-zA-Z*?/.-]{1,20}", fullmatch=True),
            max_pixels=whole(0, 1 << 32),
            drops=st.sampled_from(["", "schema", "documents, past_reasoning"]),
        ),
        max_size=3,
    ).map(tuple),
    budget=st.builds(
        BudgetSettings,
        beta=st.floats(0, 1, exclude_min=True, exclude_max=True),
        gamma=st.floats(0, 10),
        prior_bytes_per_token=st.floats(0.1, 100),
        default_output_tokens=whole(0, MAX_TOKENS),
    ),
    categories=st.builds(
        CategorySettings,
        header=st.from_regex(r"(z[a-z0-9!#$%&'*+.^_`|~-]*)?", fullmatch=True),
        max=whole(2, 1024),
    ),
    requests=st.builds(RequestSettings, max_body_bytes=whole(1024, 1 << 29)),
    log_level=st.sampled_from(LogLevel),
)


@given(settings)
def test_what_is_rendered_is_read_to_the_same_value(file, value):
    assert read(file, render(value)) == value


@given(settings)
def test_what_is_rendered_means_the_same_to_every_reader_of_yaml(file, value):
    tree = yaml.safe_load(render(value))
    assert [pool["name"] for pool in tree["pools"]] == [pool.name for pool in value.pools]


# Whatever the file


def settings_or_faults(file, text):
    try:
        outcome = read(file, text)
    except ConfigError as error:
        outcome = str(error)
    if not isinstance(outcome, Settings):
        assert outcome
        assert all(line.startswith(f"{file}:") for line in outcome.splitlines())


@given(st.binary(max_size=200))
def test_any_bytes_give_settings_or_faults(file, data):
    settings_or_faults(file, data)


words = st.one_of(
    st.sampled_from(" :-?#[]{}&*!|>'\"~%@`,\n\t\r\0\x85\u2028\ufeffé"),
    st.sampled_from(["listen", "pools", "workers", "name", "beta", "1", "1e999", "- ", "\n  "]),
    st.sampled_from(["&a ", "*a", "!!int ", "---\n", "...", "%YAML 1.1\n", "%TAG ! x\n", "<<: "]),
    st.sampled_from(['"\\x41"', '"\\ud800"', '"\\U00110000"', '"\\UFFFFFFFF"']),
)


@given(st.lists(st.one_of(words, st.text(max_size=3)), max_size=25))
def test_any_text_gives_settings_or_faults(file, parts):
    settings_or_faults(file, "".join(parts).encode(errors="replace"))


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.dates()
)
names = [path[-1] for path, _ in keys(Settings())] + list(PoolSettings.model_fields)
mappings = st.one_of(st.sampled_from(names), scalars)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(mappings, inner, max_size=4)
    ),
    max_leaves=12,
)


@given(values)
def test_any_value_gives_settings_or_faults(file, value):
    settings_or_faults(file, yaml.safe_dump(value))


@given(settings, st.sampled_from(list(keys(Settings()))), values)
def test_any_value_of_a_key_gives_settings_or_faults(file, sound, key, value):
    tree = yaml.safe_load(render(sound))
    *parents, name = key[0]
    (tree[parents[0]] if parents else tree)[name] = value
    settings_or_faults(file, yaml.safe_dump(tree))


@given(rows_of_pools(), st.sampled_from(list(PoolSettings.model_fields)), values, st.data())
def test_any_value_in_a_pool_gives_settings_or_faults(file, sound, key, value, data):
    tree = yaml.safe_load(render(Settings(pools=sound)))
    data.draw(st.sampled_from(tree["pools"]))[key] = value
    settings_or_faults(file, yaml.safe_dump(tree))


# Rows of pools

ROWS = """rows:
  - {models: [a, "b-*"], pools: [{name: a, max_model_len: 8192}, {name: b, max_model_len: 9000}]}
  - {models: ["*"], pools: [{name: c, max_model_len: 4096}]}
"""


def test_rows_have_pools_of_their_own_and_all_of_them_together(file):
    settings = read(file, ROWS)
    assert [[pool.name for pool in row.pools] for row in settings.fleet] == [["a", "b"], ["c"]]
    assert [pool.name for pool in settings.pools] == ["a", "b", "c"]
    assert [place for place, _ in settings.placed_pools()][-1] == ("rows", 1, "pools", 0)
    assert settings.unnamed_row.pools[0].name == "c"


def test_pools_are_one_row_of_every_model():
    [row] = Settings().fleet
    assert (row.models, row.pools) == (("*",), Settings().pools)
    assert [place for place, _ in Settings().placed_pools()] == [("pools", 0), ("pools", 1)]


def test_rows_that_are_rendered_are_read_to_the_same_value(file):
    settings = read(file, ROWS)
    text = render(settings)
    assert read(file, text) == settings
    assert "\npools:" not in text
    assert text.count("threshold: ") == 1


def test_no_rows_may_be_written_beside_pools(file):
    assert read(file, f"rows: []\n{POOLS}").rows == ()


def test_a_command_for_one_row_refuses_several(file):
    file.write_text(ROWS)
    with pytest.raises(ConfigError, match=r":1: rows: this command looks at one row, not 2"):
        load_row(file)
    file.write_text(POOLS)
    assert load_row(file) == load(file)


def test_two_addresses_of_envoy_may_have_one_port(tmp_path):
    file = tmp_path / "dualpool.yaml"
    file.write_text("envoy: {listen: '10.0.0.1:9901', admin: '127.0.0.1:9901'}\n")
    assert load(file).envoy.listen == "10.0.0.1:9901"
