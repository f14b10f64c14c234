"""The metrics of workers, while one of them starts."""

import struct
import threading

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from extproc.service.worker_files import WorkerFilesCollector


def collected(folder):
    registry = CollectorRegistry()
    WorkerFilesCollector(registry, path=str(folder))
    return {sample.name: sample.value for family in registry.collect() for sample in family.samples}


def test_a_file_that_gets_its_size_meanwhile_is_read(tmp_path):
    file = tmp_path / "counter_1.db"
    file.touch()

    def write():
        values = MmapedDict(str(file))
        values.write_value(mmap_key("x", "x_total", [], [], "help"), 3.0, 0.0)
        values.close()

    starting = threading.Timer(0.05, write)
    starting.start()
    assert collected(tmp_path) == {"x_total": 3.0}
    starting.join()


def test_a_file_that_stays_empty_is_an_error(tmp_path):
    (tmp_path / "counter_1.db").touch()
    with pytest.raises(struct.error):
        collected(tmp_path)
