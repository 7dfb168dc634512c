import os
import signal
import threading

import pytest

from caduceus_jax.train.run.interruption import EXIT_STATUS, Interruption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_noted_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with Interruption() as interruption:
        assert interruption.signal is None and interruption.after(1) is None
        os.kill(os.getpid(), number)
        assert interruption.signal is number and interruption.after(2) is number
    assert signal.getsignal(number) is before


def test_a_second_sigterm_changes_nothing():
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.after(1) is signal.SIGTERM


def test_a_second_interrupt_stops_at_once():
    with pytest.raises(KeyboardInterrupt), Interruption():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)


def test_statuses_are_those_of_schedulers_and_shells():
    assert EXIT_STATUS == {signal.SIGTERM: 75, signal.SIGINT: 130}


def test_in_another_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    found = []

    def inside():
        with Interruption() as interruption:
            found.extend([interruption.signal, signal.getsignal(signal.SIGTERM)])

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [None, before]
