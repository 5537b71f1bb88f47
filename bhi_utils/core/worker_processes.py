"""Worker processes that start as fresh Pythons, end with their parent, and hand back results in order.

Used by ``data.packing``, ``data.inspection`` and ``data.phantom.synthetic_archive``, and by ``training.smote`` for the number of cores. It
imports the standard library only, so that a worker starts quickly.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

#: More processes than this gain nothing here: the parent, which writes, becomes the bottleneck.
MOST = 32


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(job: Callable[..., Any], calls: Sequence[tuple], processes: int, *, fallback: str = "", ahead: int = 2) -> Iterator[Any]:
    """``job(*call)`` of each call, in order.

    Args:
        job: a function of a module; its results should be small: megabytes sent through the pool's pipe would keep workers waiting in the
            middle of a message, and one killed there, for want of memory say, would leave the parent waiting for ever.
        calls: the arguments.
        processes: how many processes; with one, everything happens in this one.
        fallback: what goes on in this process, as a line on stderr says it, when the processes end early: in a script without a main
            guard, or when one is killed for memory. Empty: that is an error.
        ahead: how many calls wait for each process; more would fill memory or disk with results.

    Raises:
        BrokenProcessPool: the processes ended early and there is no fallback.
    """
    done = 0
    if processes > 1:
        context = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(processes, mp_context=context, initializer=_follow_parent)
        try:
            waiting, following = deque(), iter(calls)
            while done < len(calls):
                while len(waiting) < ahead * processes and (call := next(following, None)) is not None:
                    waiting.append(executor.submit(job, *call))
                yield waiting.popleft().result()
                done += 1
        except BrokenProcessPool:
            if not fallback:
                raise
            print(f"\nThe worker processes ended early; {fallback} goes on in this one.", file=sys.stderr)
        finally:
            executor.shutdown(cancel_futures=True)
    for call in calls[done:]:
        yield job(*call)


def _follow_parent() -> None:
    """Make a worker process end when its parent is killed, and leave Ctrl+C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, daemon=True).start()
