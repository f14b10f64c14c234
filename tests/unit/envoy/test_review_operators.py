"""Operators' own Envoy files compared with the settings: nothing else is judged than our routes."""

import pytest

from extproc.config.settings import Settings
from extproc.envoy.document import Part
from extproc.envoy.review import review
from tests.support.operator_files import FAULTS, NAMES, broken, load


def findings(document):
    return [str(each) for each in review(Settings(), Part("", document))]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_joins_the_service_rightly_has_no_finding(name):
    assert findings(load(name)) == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_and_nothing_else(name):
    found = findings(broken(name))
    assert found
    assert all(FAULTS[name][2] in each for each in found), found


def test_each_file_has_several_faults():
    planted = [file for file, _, _ in FAULTS.values()]
    assert all(planted.count(name) >= 2 for name in NAMES)
