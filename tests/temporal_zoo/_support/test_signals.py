"""Signals that ask a command to stop."""

import signal

import pytest

from temporal_zoo._support.signals import exit_code, stoppable


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_stored_and_the_handlers_return_to_their_old_state(number):
    before = signal.getsignal(number)
    with stoppable() as stop:
        signal.raise_signal(number)
        assert stop.signal == number
        assert signal.getsignal(number) == before  # so that a second signal has its usual effect
    assert exit_code(number) == 128 + number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_any_signal_raises_keyboard_interrupt_where_the_caller_wants_it(number):
    with stoppable(interrupt=True) as stop, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert stop.signal == number


def test_under_nohup_the_program_still_ignores_sighup():
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert stop.signal is None
    finally:
        signal.signal(signal.SIGHUP, usual)
