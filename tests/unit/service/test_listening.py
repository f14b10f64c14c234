"""What is said of an address on which nothing can listen; the servers' tests have the rest."""

import errno

from extproc.service.listening import cannot_listen, why_not


def test_a_fault_of_another_kind_is_told_in_the_words_of_the_system():
    text = str(cannot_listen("10.0.0.1:80", "gRPC", PermissionError(errno.EACCES, "words")))
    reason = "Permission denied; change listen.grpc"
    assert text == f"cannot listen on 10.0.0.1:80 for gRPC: {reason}"


def test_a_path_that_cannot_be_bound_has_its_reason(tmp_path):
    assert why_not(f"unix:{tmp_path}/none/s").errno == errno.ENOENT


def test_of_an_address_that_is_free_no_reason_is_known():
    assert str(why_not("127.0.0.1:0")) == "no reason is known"
