import argparse
from pathlib import Path

import pytest

from extproc.commands import demo, evaluate, plan, profile, simulate, up
from extproc.commands.arguments import add_config, add_inputs, add_stack, input_options
from extproc.commands.serve import TRANSPORTS
from extproc.commands.up import stack_options
from extproc.config.settings import Transport
from extproc.local import demo as local_demo
from extproc.local import up as local_up
from extproc.local.demo import DemoOptions
from extproc.local.ports import Ports
from extproc.local.stack import StackOptions
from extproc.planner_commands.inputs import InputOptions
from extproc.profiling import profile as profiling_profile
from extproc.profiling.profile import ProfileOptions


def parse(fill, *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    fill(parser)
    return parser.parse_args(arguments)


@pytest.fixture
def given(monkeypatch):
    """What the commands pass on, in place of running them."""
    options = []
    for module, name in (
        (local_demo, "run_demo"),
        (local_up, "run_up"),
        (profiling_profile, "run_profile"),
    ):
        monkeypatch.setattr(module, name, lambda each: options.append(each) or 7)
    return options


@pytest.mark.parametrize(("arguments", "file"), [((), None), (("--config", "a"), Path("a"))])
def test_the_settings_file_may_be_left_out(arguments, file):
    assert parse(add_config, *arguments).config == file


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((), StackOptions()),
        (("--ports", "fixed"), StackOptions(ports=Ports())),
        (("--ports", "auto"), StackOptions(ports=None)),
        (("--pools", "http://a:1,http://b:2"), StackOptions(pools=("http://a:1", "http://b:2"))),
        (("--pools", ""), StackOptions(pools=())),
        (("--ports", "1,2,3,4,5,6"), StackOptions(ports=Ports(1, 2, 3, 4, (5, 6)))),
        (("--listen", "0.0.0.0:80"), StackOptions(listen="0.0.0.0:80")),
        (("--speed", "50", "--seed", "3"), StackOptions(speed=50.0, seed=3)),
    ],
)
def test_the_stack_is_what_its_arguments_say(arguments, options):
    assert stack_options(parse(add_stack, *arguments)) == options


def test_the_stack_has_the_pools_of_a_settings_file(tmp_path):
    file = tmp_path / "mine.yaml"
    rows = "".join(f"- {{name: p{n}, max_model_len: {n}000}}\n" for n in (1, 2, 3))
    file.write_text(f"pools:\n{rows}budget: {{target: 0.01}}\n")
    options = stack_options(parse(add_stack, "--config", str(file)))
    assert [(size.name, size.max_model_len) for size in options.sizes] == [
        ("p1", 1000),
        ("p2", 2000),
        ("p3", 3000),
    ]
    assert options.named
    assert options.ports.pools == (8101, 8102, 8103)
    assert options.settings["budget"]["target"] == 0.01


def test_the_inputs_are_what_their_arguments_say():
    words = ("f", "--from", "u", "--weight", "2", "--weight", "1", "--output-share", "0.5")
    expected = InputOptions(files=(Path("f"),), services=("u",), weights=(2, 1), output_share=0.5)
    assert input_options(parse(add_inputs, *words)) == expected


def test_up_runs_the_stack(given):
    assert up.run(parse(up.fill, "--ports", "auto")) == 7
    assert given == [StackOptions(ports=None)]


def test_the_defaults_of_the_demo_are_those_of_its_options(given):
    assert demo.run(parse(demo.fill)) == 7
    assert given == [DemoOptions()]


def test_every_argument_reaches_the_demo(given):
    words = (
        "--requests 9 --rate 2 --concurrency 3 --exceeding 0.5 --texts t --json j --seed 4"
        " --compose http://h:1 --keep"
    )
    demo.run(parse(demo.fill, *words.split()))
    assert given == [
        DemoOptions(
            stack=StackOptions(seed=4),
            compose="http://h:1",
            requests=9,
            seed=4,
            rate=2.0,
            concurrency=3,
            exceeding=0.5,
            texts=Path("t"),
            json=Path("j"),
            keep=True,
        )
    ]


def test_the_defaults_of_profile_are_those_of_its_options(given):
    assert profile.run(parse(profile.fill, "http://h:1")) == 7
    assert given == [ProfileOptions(url="http://h:1")]


def test_every_argument_reaches_profile(given):
    words = "http://h:1 --out o --most 8 --max-num-batched-tokens 512 --gpus 4 --price 2.5"
    profile.run(parse(profile.fill, *words.split()))
    assert given == [
        ProfileOptions(
            url="http://h:1",
            out=Path("o"),
            most=8,
            max_num_batched_tokens=512,
            gpus=4,
            price_per_gpu_h=2.5,
        )
    ]


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (demo, "--json"),
        (evaluate, "--json"),
        (evaluate, "--plot"),
        (plan, "--json"),
        (plan, "--html"),
        (plan, "--plot"),
        (profile, "http://h:1 --json"),
        (profile, "http://h:1 --out"),
        (simulate, "--json"),
        (simulate, "--plot"),
    ],
)
def test_a_file_that_could_not_be_written_is_refused_at_once(module, words, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(module.fill, *words.split(), str(tmp_path / "absent" / "file"))
    assert f"no such folder: {tmp_path / 'absent'}" in capsys.readouterr().err


@pytest.mark.parametrize("speed", ["0", "-1", "nan", "inf", "fast"])
def test_the_pools_run_at_a_speed_above_0(speed, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(add_stack, "--speed", speed)
    assert f"'{speed}' is not allowed: a number above 0" in capsys.readouterr().err


@pytest.mark.parametrize("module", [demo, evaluate, plan, profile, simulate, up])
def test_every_argument_has_a_help_text(module):
    parser = argparse.ArgumentParser()
    module.fill(parser)
    assert all(action.help for action in parser._actions)


def test_the_transports_of_serve_are_those_of_the_settings():
    assert tuple(Transport) == TRANSPORTS
