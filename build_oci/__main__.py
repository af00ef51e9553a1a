"""The process: `python -m build_oci` and the console script."""

import gc
import os
import signal
from typing import NoReturn

# Before the imports, which make the most objects: to look for garbage among them takes 2 ms, and
# there is none.
gc.set_threshold(50_000)
# Until the command line has its own handlers, and after it has put them away, Ctrl-C ends the
# process as SIGTERM does: a KeyboardInterrupt would print a traceback. A signal that is ignored
# stays so.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from build_oci.cli.command import main  # noqa: E402


def command() -> NoReturn:
    """Runs the command line of this process and ends it."""
    status = main()
    # All is written and said, and no thread is left. To take the interpreter apart costs 5 ms, and
    # 10 after a build with a layer.
    os._exit(status)


if __name__ == "__main__":
    command()
