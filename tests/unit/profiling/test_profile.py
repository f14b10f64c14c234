"""`dualpool profile`: what it prints and writes."""

import io

from rich.console import Console

from extproc.profiling.fitting import Decode, FirstToken, fit
from extproc.profiling.measuring import Measured
from extproc.profiling.profile import Profiled, ProfileOptions, print_profile, run_profile
from extproc.profiling.vllm import Facts
from extproc.simulator.engine.profiles import read_profile, write_profile

MEASURED = Measured(
    (
        *(Decode(sequences=n, kv_tokens=40 * n, measured_ms=7 + 0.9 * n) for n in (1, 2, 4, 8)),
        *(FirstToken(prompt_tokens=p, measured_ms=14 + 0.01 * p) for p in (16, 256, 1024, 2000)),
    ),
    8,
)
FACTS = Facts(model="tiny", max_model_len=2048, block_size=32, num_blocks=96)
PROFILED = Profiled(FACTS, MEASURED, fit(MEASURED.measurements, 2048))


def test_the_profile_is_one_that_the_planner_reads():
    instance = PROFILED.instance(gpus=2, price_per_gpu_h=2.21)
    assert read_profile(write_profile(instance)) == instance
    assert (instance.kv_tokens, instance.block_size, instance.gpus) == (3072, 32, 2)
    assert instance.overhead_s * 1e3 == PROFILED.fit.overhead_ms


def test_every_measurement_is_printed_with_its_residual():
    out = io.StringIO()
    print_profile(Console(file=out, width=100), PROFILED)
    printed = out.getvalue()
    assert printed.count("first token, ") == 4
    assert printed.count("iteration, ") == 4
    assert printed.count("%") == 8
    assert "KV cache of 96 blocks of 32 tokens, 8 sequences ran at once" in printed


def test_a_server_that_is_not_there_is_one_line_and_exit_code_1(capsys):
    assert run_profile(ProfileOptions(url="http://127.0.0.1:9")) == 1
    assert capsys.readouterr().err.startswith("dualpool: http://127.0.0.1:9: no answer")


def test_fewer_than_one_sequence_is_asked_the_wrong_way(capsys):
    assert run_profile(ProfileOptions(url="http://127.0.0.1:9", most=0)) == 2
    assert "--most: 0, " in capsys.readouterr().err
