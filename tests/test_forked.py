"""The processes that tests start."""

import os
import pty
import signal
import time


def test_a_forked_process_is_like_any_other(forked, tmp_path) -> None:
    code = (
        "import os, sys\n"
        "print(sys.argv[1:], os.environ['WORD'], os.getcwd(), __name__, flush=True)\n"
        "assert 'torch' in sys.modules\n"
        "print('bad', file=sys.stderr)\n"
        "sys.exit(3)"
    )
    done = forked(code, "a b", 2, cwd=tmp_path, WORD="x")
    assert done.wait() == 3
    assert done.stdout == f"['a b', '2'] x {tmp_path} __main__\n"
    assert done.stderr == "bad\n"


def test_signals_and_what_python_says_of_them(forked) -> None:
    sleeping = "import time\nprint('now', flush=True)\ntime.sleep(60)"
    for number, code in ((signal.SIGINT, -2), (signal.SIGKILL, -9)):
        process = forked(sleeping)
        while not process.stdout:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(20) == code
        assert process.stderr.endswith("KeyboardInterrupt\n") == (number == signal.SIGINT)


def test_a_terminal_of_its_own(forked) -> None:
    ours, theirs = pty.openpty()
    process = forked("print(input('name? '))", tty=os.ttyname(theirs))
    shown = b""
    while b"name? " not in shown:
        shown += os.read(ours, 100)
    time.sleep(0.1)
    os.write(ours, b"\x03")
    assert process.wait(20) == -2
    os.close(theirs)
    os.close(ours)
