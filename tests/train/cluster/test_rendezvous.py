import socket
import threading

import pytest

from caduceus_jax.errors import UserError
from caduceus_jax.train.cluster.rendezvous import NotMet, meet


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def come(port, numbers, counts=None, seconds=20.0):
    """What each process is answered, by its place in `numbers`."""
    found = {}

    def work(place, number):
        count = counts[place] if counts else len(numbers)
        try:
            found[place] = meet(
                f"localhost:{port}", count, number, {"host": f"node-{place}"}, seconds
            )
        except UserError as error:
            found[place] = error

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(numbers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[place] for place in range(len(numbers))]


def test_everybody_learns_where_the_others_are():
    answers = come(free_port(), [2, 0, 1, 3])
    assert all(answer == answers[0] for answer in answers)
    assert [message["host"] for message in answers[0]] == ["node-1", "node-2", "node-0", "node-3"]
    # The port is free again, for JAX.


def test_who_does_not_come_is_named_to_all_that_did():
    answers = come(free_port(), [0, 2], counts=[4, 4], seconds=1.5)
    for error in answers:
        assert isinstance(error, NotMet) and error.exit_status == 1
        assert "processes 1, 3 of 4 did not come within 2 s" in str(error)
        assert "there are processes 0 (node-0), 2 (node-1)" in str(error)


def test_without_process_0_the_address_is_named():
    (error,) = come(free_port(), [1], counts=[2], seconds=1.0)
    assert "process 1 (node-0) did not reach process 0 at localhost:" in str(error)
    assert "(Connection refused)" in str(error)
    with pytest.raises(NotMet, match=r"the host nowhere\.invalid is unknown"):
        meet("nowhere.invalid:1", 2, 1, {"host": "a"}, 1.0)
    with pytest.raises(UserError, match="coordinator is node-a; it is host:port"):
        meet("node-a", 2, 1, {"host": "a"}, 1.0)


def test_processes_that_were_told_different_things_are_named():
    answers = come(free_port(), [0, 1, 1], seconds=5.0)
    assert "two processes have the number 1, one on node-" in str(answers[0])
    answers = come(free_port(), [0, 1], counts=[3, 2], seconds=5.0)
    assert "was started as one of 2 processes, and process 0 (node-0) as one of 3" in str(
        answers[0]
    )
    assert str(answers[0]) == str(answers[1])


def test_strangers_at_the_door_are_ignored():
    port = free_port()

    def knock():
        for content in (b"", b"GET / HTTP/1.1\r\n\r\n", b"[1]\n"):
            for _ in range(50):
                try:
                    with socket.create_connection(("localhost", port), timeout=1) as stranger:
                        stranger.sendall(content)
                    break
                except OSError:
                    threading.Event().wait(0.05)

    thread = threading.Thread(target=knock)
    thread.start()
    answers = {}
    first = threading.Thread(
        target=lambda: answers.setdefault(0, meet(f"localhost:{port}", 2, 0, {"host": "a"}, 20.0))
    )
    first.start()
    thread.join()
    answers[1] = meet(f"localhost:{port}", 2, 1, {"host": "b"}, 20.0)
    first.join()
    assert answers[0] == answers[1]
