"""Becomes a program that ends with whoever started it, even when that one is killed.

Run as a script by its path, with the starter's process number, the account to run as (or nothing), and the
program with its arguments. The kernel forgets the tie to the starter when a process changes its account, so
both are done here, in that order, between the fork and the program itself. It imports nothing of the project,
so that it takes no time.
"""

import ctypes
import os
import pwd
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this signal to this process when the thread that started it ends.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, number.value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def main(parent: str, user: str, *argv: str) -> None:
    """Replace this process by the program; returns only if the starter has gone already."""
    if user:
        account = pwd.getpwnam(user)
        os.initgroups(user, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    end_with_parent(signal.SIGKILL)
    if os.getppid() != int(parent):
        return
    # An ignored signal stays ignored in the program: Python ignores the first two, a shell's "&" the third.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.execvp(argv[0], argv)  # noqa: S606 - starting a program is what this is for


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:
        sys.exit(f"{sys.argv[3]}: {error}")
