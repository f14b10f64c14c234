"""The command line as a user meets it."""

import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version

import pytest

from extproc.cli import main
from extproc.config.errors import UserError
from extproc.config.load import load
from extproc.envoy.render import render_envoy
from extproc.names import install_hint
from tests.support.paths import ROOT

COMMANDS = (
    *("serve", "check", "config", "doctor", "explain", "up", "demo", "completion", "evaluate"),
    *("plan", "simulate", "profile"),
)
CHAT = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "x" * 400}]}


def run(*arguments, stdin=""):
    command = [sys.executable, "-m", "extproc", *arguments]
    environment = os.environ | {"COLUMNS": "100"}
    return subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )


def test_help_shows_what_to_type():
    done = run("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert re.search(rf"^    {command}\s", done.stdout, re.MULTILINE)
    assert "dualpool check dualpool.yaml" in done.stdout
    assert "\nexit codes:\n  0 " in done.stdout


@pytest.mark.parametrize("words", ["--help", "--version", *(f"{each} --help" for each in COMMANDS)])
def test_help_and_version_load_no_library(words):
    code = f"import sys; from extproc.cli import main; sys.exit(main({words.split()}))"
    command = [sys.executable, "-X", "importtime", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()
    }
    assert "extproc" in loaded
    heavy = {"aiohttp", "asyncio", "grpc", "msgspec", "numpy", "pydantic", "rich", "yaml"}
    assert not loaded & heavy


def without_the_commands_packages(*arguments):
    """Run a command where the packages of the extra `commands` are not installed."""
    missing = ("betterproto2", "envoy_data_plane", "jinja2", "rich")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing}))\n"
        f"from extproc.cli import main; sys.exit(main({list(arguments)}))"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        (["config", "envoy"], "jinja2"),
        (["plan", "lengths.csv"], "rich"),
        (["profile", "http://h"], "rich"),
    ],
)
def test_a_command_says_which_package_it_needs(arguments, package):
    command = arguments[0]
    done = without_the_commands_packages(*arguments)
    needs = f"dualpool {command} needs the package {package}: {install_hint('commands')}\n"
    assert (done.returncode, done.stderr) == (2, needs)


@pytest.mark.parametrize("command", ["serve", "check", "explain"])
def test_the_service_and_its_checks_need_no_extra(command):
    done = without_the_commands_packages(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [["check"], ["completion", "bash"]])
def test_a_reader_that_leaves_ends_the_output_without_a_message(words):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "extproc", *words]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("words", "closed", "code"),
    [("explain -", "<&-", 1), ("check", ">&-", 0), ("check /nowhere", "2>&-", 2)],
)
def test_a_stream_that_is_closed_ends_no_command(words, closed, code):
    shell = f"{sys.executable} -m extproc {words} {closed}"
    done = subprocess.run(shell, shell=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr


def test_names_that_a_terminal_cannot_show_end_no_command():
    body = json.dumps({"model": "模型", "messages": [{"role": "user", "content": "hi"}]})
    done = subprocess.run(
        [sys.executable, "-m", "extproc", "explain", "-"],
        input=body.encode(),
        env=os.environ | {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u6a21\u578b" in done.stdout


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"dualpool {version('dualpool')}\n"


@pytest.mark.parametrize("command", ["serve", "up", "doctor"])
def test_a_file_without_its_flag_is_told_the_flag(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "dp.yaml"])
    usage, error = capsys.readouterr().err.split(f"\ndualpool {command}: error: ")
    assert end.value.code == 2
    assert usage.startswith(f"usage: dualpool {command} ")
    assert error == "unrecognized arguments: dp.yaml; did you mean --config dp.yaml?\n"


@pytest.mark.parametrize(
    "words",
    [["check", "--config", "a"], ["check", "--config=a"], ["config", "envoy", "--config", "a"]],
)
def test_a_flag_before_a_file_that_has_none_is_told_so(words, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert capsys.readouterr().err.endswith(
        "; this command takes the settings file without a flag\n"
    )


def test_the_help_of_explain_is_true_with_rows_too(capsys):
    with pytest.raises(SystemExit):
        main(["explain", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "the largest pool gets it or, where rows name models, one that Envoy chooses." in told


@pytest.mark.parametrize("words", [["serve", "--files"], ["check", "a", "b"], ["--files", "check"]])
def test_what_is_no_file_of_settings_is_told_no_flag(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "--config" not in capsys.readouterr().err.rpartition("error: ")[2]


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (UserError("a.yaml: empty"), "a.yaml: empty\n", 2),
        (UserError("http://me:pw@a:1: gone"), "http://***@a:1: gone\n", 2),
        (UserError("http://[USER@a:pw@b:1: gone"), "http://***@b:1: gone\n", 2),
        (UserError("http://a/l?token=s3cret&x: gone"), "http://a/l?***: gone\n", 2),
        (UserError("GET 'http://a/?s3cret' > FILE?"), "GET 'http://a/?***' > FILE?\n", 2),
        (OSError("http://me:pw@a?s3cret gone"), "dualpool: http://***@a?*** gone\n", 1),
        (
            UserError("'redis://me:pw@a:1': redis://[USER@]HOST:PORT[,HOST:PORT]/NAME"),
            "'redis://***@a:1': redis://[USER@]HOST:PORT[,HOST:PORT]/NAME\n",
            2,
        ),
        (FileNotFoundError(2, "No such file", "/x"), "dualpool: /x: No such file\n", 1),
        (OSError(98, "address in use"), "dualpool: address in use\n", 1),
        (OSError("cannot listen"), "dualpool: cannot listen\n", 1),
        (KeyboardInterrupt(), "", 130),
    ],
)
def test_an_error_of_a_command_is_one_message(error, message, code, monkeypatch, capsys):
    def run(_options):
        raise error

    monkeypatch.setattr("extproc.commands.check.run", run)
    assert main(["check"]) == code
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["check"], 0),
        (["check", "--envoy", "{bad}"], 1),
        (["doctor", "--envoy", "127.0.0.1:1", "--service", "127.0.0.1:1"], 1),
        (["profile", "http://127.0.0.1:1"], 1),
        (["nothing"], 2),
        (["check", "--nothing"], 2),
        (["check", "/nowhere.yaml"], 2),
        (["serve", "--config", "/nowhere.yaml"], 2),
        (["config", "envoy", "/nowhere.yaml"], 2),
        (["explain", "/nowhere.json"], 2),
        (["doctor", "--envoy", "host"], 2),
        (["doctor", "--watch", "-1"], 2),
        (["up", "--ports", "1,2"], 2),
        (["up", "--ports", "a,b,c,d,e,f"], 2),
        (["up", "--listen", "host:99999"], 2),
        (["up", "--pools", "nonsense://"], 2),
        (["demo", "--requests", "0"], 2),
        (["demo", "--ports", "70000,1,2,3,4,5"], 2),
        (["plan", "/nowhere.csv", "--rate", "1"], 2),
        (["simulate", "/nowhere.csv"], 2),
        (["evaluate", "--requests", "0"], 2),
        (["completion", "fish"], 2),
    ],
)
def test_the_exit_code_says_whose_fault_it_is(words, code, tmp_path, capsys):
    bad = tmp_path / "envoy.yaml"
    bad.write_text("static_resources: {}\n")
    words = [word.format(bad=bad) for word in words]
    assert exit_code(words) == code
    assert "Traceback" not in capsys.readouterr().err


def exit_code(words):
    try:
        return main(words)
    except SystemExit as end:  # of argparse
        return end.code


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"dualpool {command}" in capsys.readouterr().out


def test_check_without_a_file_prints_the_defaults(capsys):
    assert main(["check"]) == 0
    assert "max_model_len: 8192" in capsys.readouterr().out


def test_what_check_prints_it_accepts(tmp_path, capsys):
    main(["check"])
    printed = capsys.readouterr().out
    (tmp_path / "all.yaml").write_text(printed)
    assert main(["check", str(tmp_path / "all.yaml")]) == 0
    assert capsys.readouterr().out == printed


def test_faults_in_a_file_are_told_at_once_and_end_with_2(tmp_path, capsys):
    file = tmp_path / "bad.yaml"
    file.write_text("workers: 0\nbudgett: {}\n")
    assert main(["check", str(file)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert "workers: 0 is not allowed" in told[0]
    assert "did you mean 'budget'?" in told[1]


def test_a_file_that_is_not_there_is_one_message(capsys):
    assert main(["serve", "--config", "/nowhere.yaml"]) == 2
    assert capsys.readouterr().err.startswith("/nowhere.yaml: ")


def explained(tmp_path, body, *options):
    file = tmp_path / "body.json"
    file.write_text(body if isinstance(body, str) else json.dumps(body))
    done = run("explain", str(file), "--json", "--config", str(paper(tmp_path)), *options)
    return json.loads(done.stdout)


def paper(folder):
    """Settings whose figures can be checked by hand."""
    file = folder / "paper.yaml"
    file.write_text("budget: {estimator: paper}\n")
    return file


def test_explain_shows_every_figure_of_the_decision(tmp_path):
    assert explained(tmp_path, CHAT) == {
        "pool": "short",
        "reason": "fits",
        "api": "chat",
        "form": "",
        "category": "prose/m",
        "content_class": "prose",
        "text_bytes": 400,
        "token_ids": 0,
        "bytes_per_token": 4.0,
        "prompt_tokens": 100,
        "margin_tokens": 0,
        "output_tokens": 50,
        "budget_tokens": 150,
        "placed_tokens": 150,
        "counted_tokens": 0,
        "basis": "prior",
        "unreadable": "",
    }


def test_explain_names_the_form_that_a_request_demands_of_its_answer(tmp_path, capsys):
    body = tmp_path / "body.json"
    body.write_text('{"messages": [], "max_tokens": 5, "response_format": {"type": "json_object"}}')
    assert main(["explain", str(body), "--path", "/v1/chat/completions"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "api        chat"
    assert "output     5 tokens, form shaped" in lines


def test_explain_says_why_a_body_cannot_be_read(tmp_path):
    told = explained(tmp_path, "{")
    assert (told["pool"], told["reason"], told["unreadable"]) == ("long", "unreadable", "json")


def test_explain_reads_standard_input_and_writes_for_a_reader(tmp_path):
    done = run("explain", "-", "--config", str(paper(tmp_path)), stdin=json.dumps(CHAT))
    assert done.returncode == 0
    assert "budget     150 tokens" in done.stdout
    assert "pool       short (fits)" in done.stdout


def test_explain_for_a_reader_says_unreadable(capsys, tmp_path):
    file = tmp_path / "body"
    file.write_text("{")
    assert main(["explain", str(file)]) == 1
    assert capsys.readouterr().out == "unreadable (json): pool long, the largest\n"


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b'{"a": [1,\n 2}', "line 2, column 3 (byte 12): JSON is malformed: expected ',' or ']'"),
        (b'{"secret": "\xff"}', "line 1, column 13 (byte 12): not UTF-8"),
        (b'{"secret', "line 1, column 9 (byte 8): Input data was truncated"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b"[]", "not a JSON object, or not all of its prompt is in it"),
        (b"", "the body is empty"),
    ],
)
def test_explain_says_why_a_body_cannot_be_read_and_none_of_it(body, where, tmp_path, capsys):
    file = tmp_path / "body"
    file.write_bytes(body)
    assert main(["explain", str(file), "--path", "/v1/chat/completions"]) == 1
    assert capsys.readouterr().err == f"dualpool: {file}: {where}\n"


@pytest.mark.parametrize(
    ("listen", "noted"),
    [("0.0.0.0:50051", True), ("127.0.0.1:50051", False), ("unix:/run/d.sock", False)],
)
def test_check_notes_streams_without_tls_from_elsewhere(listen, noted, tmp_path, capsys):
    (tmp_path / "dualpool.yaml").write_text(f'listen: {{grpc: "{listen}"}}\n')
    assert main(["check", str(tmp_path / "dualpool.yaml")]) == 0
    assert ("note: listen.grpc" in capsys.readouterr().err) is noted


COMPLETED = """\
source <({python} -m extproc completion bash)
COMP_WORDS=(dualpool {words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_shtab_dualpool
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "completed"),
    [("do", "doctor"), ("doctor --e", "--envoy"), ("completion z", "zsh")],
)
def test_bash_completes_commands_and_their_arguments(words, completed):
    script = COMPLETED.format(python=sys.executable, words=words)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [completed]


def test_zsh_gets_a_script_of_its_own(capsys):
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("#compdef dualpool\n")


def painted(tmp_path, **environment):
    """Return what a command with tables writes to a terminal."""
    lengths = tmp_path / "lengths.csv"
    lengths.write_text("prompt_tokens,completion_tokens\n" + "100,50\n" * 20)
    command = [sys.executable, "-m", "extproc", "plan", str(lengths), "--rate", "5"]
    master, slave = pty.openpty()
    environment = (
        {"TERM": "xterm"} | {k: v for k, v in os.environ.items() if k != "TERM"} | environment
    )
    subprocess.run(command, stdout=slave, stderr=subprocess.DEVNULL, check=False, env=environment)
    os.close(slave)
    told = b""
    with suppress(OSError):  # the other end is closed
        while piece := os.read(master, 65536):
            told += piece
    os.close(master)
    return told


def test_colours_are_for_terminals_and_no_color_switches_them_off(tmp_path):
    assert b"\x1b[" in painted(tmp_path)
    # Bold and faint are no colours.
    assert not re.search(rb"\x1b\[([0-9]*;)?[34][0-9]", painted(tmp_path, NO_COLOR="1"))


def test_explain_refuses_a_path_that_carries_no_prompt(tmp_path, capsys):
    assert main(["explain", str(tmp_path), "--path", "/v1/models"]) == 2
    assert "/v1/models carries no prompt" in capsys.readouterr().err


def test_explain_guesses_the_path_from_the_fields(tmp_path, capsys):
    file = tmp_path / "body.json"
    file.write_text('{"model": "m", "prompt": "Where do owls sleep?", "max_tokens": 9}')
    assert main(["explain", str(file), "--json"]) == 0
    guessed = capsys.readouterr()
    assert guessed.err == "dualpool: without --path this counts as a body of /v1/completions\n"
    assert main(["explain", str(file), "--json", "--path", "/v1/completions"]) == 0
    assert capsys.readouterr() == (guessed.out, "")


def test_explain_of_a_file_that_is_not_there_is_one_message(capsys):
    assert main(["explain", "/nowhere.json"]) == 2
    assert capsys.readouterr().err == ("dualpool: /nowhere.json: No such file or directory\n")


def test_the_demo_without_its_extra_says_what_to_install(tmp_path):
    # A folder before site-packages in which the tokenizer cannot be found.
    hidden = tmp_path / "sitecustomize.py"
    hidden.write_text(
        "import importlib.util as u, sys\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'bpe_openai' else find(name, *rest)\n"
    )
    command = [sys.executable, "-m", "extproc", "demo", "--ports", "auto"]
    path = os.pathsep.join([str(tmp_path), os.getcwd()])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": path, "COLUMNS": "200"},
    )
    assert done.returncode == 1
    assert install_hint("local") in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "package"),
    [
        *(("serve", "grpc"), ("up", "jinja2"), ("demo", "aiohttp"), ("profile", "numpy")),
        *((command, "msgspec") for command in ("plan", "simulate", "evaluate")),
    ],
)
def test_the_help_of_a_command_does_not_load_its_libraries(command, package):
    code = f"import sys; from extproc.cli import main\ntry: main(['{command}', '--help'])\n"
    code += "finally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert package not in done.stdout.splitlines()[-1].split()


def test_a_command_loads_no_other():
    code = "import sys; from extproc.cli import main; main(['check']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"extproc.planner", "extproc.local.demo", "grpc"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("budget", "noted"),
    [
        ("target: 0.0004", True),
        ("target: 0.0005", False),
        ("{target: 0.0004, estimator: paper}", False),
    ],
)
def test_check_notes_a_target_that_may_not_hold(tmp_path, capsys, budget, noted):
    value = budget if budget.startswith("{") else f"{{{budget}}}"
    (tmp_path / "dualpool.yaml").write_text(f"budget: {value}\n")
    assert main(["check", str(tmp_path / "dualpool.yaml")]) == 0
    assert ("note: budget.target" in capsys.readouterr().err) is noted


@pytest.mark.parametrize(("estimator", "noted"), [("paper", True), ("calibrated", False)])
def test_check_notes_hints_that_the_estimator_does_not_take(tmp_path, capsys, estimator, noted):
    budget = f"{{estimator: {estimator}, stated_limits: hint}}"
    (tmp_path / "dualpool.yaml").write_text(f"budget: {budget}\n")
    assert main(["check", str(tmp_path / "dualpool.yaml")]) == 0
    assert ("note: budget.stated_limits" in capsys.readouterr().err) is noted


def test_check_notes_a_server_of_two_pools(tmp_path, capsys):
    pool = "- {{name: {}, max_model_len: {}, address: '10.0.0.1:8000'}}\n"
    file = tmp_path / "dualpool.yaml"
    file.write_text("pools:\n" + pool.format("short", 8192) + pool.format("long", 65536))
    assert main(["check", str(file)]) == 0
    noted = "note: pools.long.address: 10.0.0.1:8000 is a server of pool short too"
    assert noted in capsys.readouterr().err


@pytest.mark.parametrize(
    ("entry", "names", "noted"),
    [
        ("qwen*", ["llama"], True),
        ("qwen*", ["llama", "qwen-7b"], False),
        ("qwen", ["qwen-7b"], True),
        ("qwen-[78]b", ["qwen-7b"], False),
        ("qwen", ["qwen-*"], True),
        ("qwen-7b", ["qwen-*"], False),
        ("qwen-7*", ["qwen-*"], False),
        ("q*-7b", ["qwen-*"], False),
        ("llama-*", ["qwen-*"], True),
        ("*-7b", ["*-lora"], True),
        ("*[ab]", ["*-lora"], False),
        ("qwen", ["*"], False),
    ],
)
def test_check_notes_an_entry_of_models_that_no_row_has(tmp_path, capsys, entry, names, noted):
    file = tmp_path / "dualpool.yaml"
    row = {"models": names, "pools": [{"name": "a", "max_model_len": 4096}]}
    file.write_text(json.dumps({"rows": [row], "models": [{"name": entry, "image_tokens": 5}]}))
    assert main(["check", str(file)]) == 0
    note = f"note: models: no row has a model that '{entry}' matches"
    assert (note in capsys.readouterr().err) is noted


@pytest.mark.parametrize(
    ("earlier", "later", "noted"),
    [
        ("qwen-*", "qwen-7b", True),
        ("qwen-7b", "qwen-*", False),
        ("qwen-7b", "qwen-7b", True),
        ("qwen-?b", "qwen-7b", True),
        ("qwen-[7]b", "qwen-7b", True),
        ("qwen-*", "qwen-*b", True),
        ("qwen-*", "qwen-[78]b", True),
        ("qwen-*", "q*", False),
        ("qwen-?", "qwen-*", False),
        ("[q*]", "*", False),
        ("[q*]", "[q*]", True),
    ],
)
def test_check_notes_an_entry_of_models_that_an_earlier_one_hides(
    tmp_path, capsys, earlier, later, noted
):
    file = tmp_path / "dualpool.yaml"
    entries = [{"name": name, "image_tokens": 5} for name in (earlier, later)]
    file.write_text(json.dumps({"models": entries}))
    assert main(["check", str(file)]) == 0
    note = f"note: models: '{later}' stands behind '{earlier}', which matches all of its models"
    assert (note in capsys.readouterr().err) is noted


@pytest.mark.parametrize(
    ("folder", "arguments", "noted"),
    [("no", (), True), ("no", ("--no-files",), False), ("", (), False)],
)
def test_check_notes_a_state_that_cannot_be_saved(tmp_path, capsys, folder, arguments, noted):
    state, file = tmp_path / folder / "state", tmp_path / "dualpool.yaml"
    file.write_text(f"state: file:{state}\n")
    assert main(["check", str(file), *arguments]) == 0
    note = f"note: state: {state.parent} is absent or cannot be written; create it, writable by"
    assert (note in capsys.readouterr().err) is noted


def test_check_notes_the_same_beside_an_envoy_file(tmp_path, capsys):
    file, envoy = tmp_path / "dualpool.yaml", tmp_path / "envoy.yaml"
    file.write_text('listen: {grpc: "0.0.0.0:50051"}\n')
    envoy.write_text(render_envoy(load(file)))
    assert main(["check", str(file), "--envoy", str(envoy)]) == 0
    found = capsys.readouterr()
    assert "note: listen.grpc" in found.err
    assert found.out == f"{envoy} and the settings agree\n"


POOLS = (
    "pools:\n- {name: a, max_model_len: 100, address: 'x:1'}\n- {name: b, max_model_len: 65536}\n"
)


@pytest.mark.parametrize("shadow", [True, False])
def test_an_address_that_is_assumed_is_noted(tmp_path, capsys, shadow):
    file = tmp_path / "dualpool.yaml"
    text = POOLS.replace(", address: 'x:1'", "") if shadow else POOLS
    file.write_text(f"shadow: {str(shadow).lower()}\n{text}")
    assert main(["config", "envoy", str(file)]) == 0
    told = "note: the settings state no address of pool b: b:8000 is assumed\n"
    assert capsys.readouterr().err == told


def test_the_addresses_of_objects_of_kubernetes_are_not_noted(capsys):
    assert main(["config", "istio", str(ROOT / "envoy" / "kubernetes" / "settings.yaml")]) == 0
    assert capsys.readouterr().err == ""
