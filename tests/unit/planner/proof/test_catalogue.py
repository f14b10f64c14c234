"""Machines of the catalogue: their names, and what their figures derive."""

import pytest

from extproc.planner.proof.catalogue import ACCELERATORS, machine
from extproc.simulator.engine.profiles import ProfileError


@pytest.mark.parametrize("name", ACCELERATORS)
def test_every_accelerator_holds_the_small_model(name):
    found = machine(name, "llama-3-8b")
    assert found is not None
    assert (found.name, found.profile.gpus) == (name, 1)
    assert found.profile.kv_tokens > 20_000


def test_a_count_is_that_of_the_gpus_of_an_instance():
    found = machine("h100x8", "llama-3-70b")
    assert found is not None
    assert found.profile.gpus == 8


def test_the_kv_cache_of_an_h100_is_that_which_vllm_reported():
    found = machine("h100", "llama-3-8b")
    assert found is not None
    assert found.profile.kv_tokens == pytest.approx(451_824, rel=0.02)


@pytest.mark.parametrize("name", ["mine.json", "h100x0", "b200", "a10gx100"])
def test_other_names_are_not_in_the_catalogue(name):
    assert machine(name, "llama-3-8b") is None


def test_an_unknown_model_is_refused_with_those_there_are():
    with pytest.raises(ProfileError, match="--model: gpt is not allowed: llama-2-7b, llama-3"):
        machine("h100", "gpt")


def test_a_model_that_does_not_fit_is_refused():
    with pytest.raises(ProfileError, match="use more GPUs"):
        machine("h100", "llama-3-70b")
