"""Worker processes that start as fresh Pythons, end with their parent, and hand back results in order.

Used by ``data.packing``, ``data.inspection`` and ``data.phantom.synthetic_cohort``, and by ``training.smote`` for the number of cores.
Imports the standard library only, so that a worker starts quickly.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Any

#: More processes than this gain nothing: the parent, which writes, is the bottleneck.
MOST = 32


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(
    job: Callable[..., Any], calls: Sequence[tuple], processes: int, *, fallback: str = "", ahead: int = 2
) -> Generator[Any, None, None]:
    """Yields ``job(*call)`` of each call, in order.

    Args:
        job: a function of a module, with small results: a worker killed in the middle of a message of megabytes would leave the parent
            waiting for ever.
        calls: the arguments.
        processes: how many processes; with one, everything happens in this one.
        fallback: the work's name, for the line on stderr that says that it goes on in this process. That happens when the processes
            end early: in a script without a main guard, or when one is killed for memory. Empty: that is an error.
        ahead: how many calls wait for each process; results of more would fill memory or disk.

    Raises:
        BrokenProcessPool: the processes ended early and there is no fallback.
    """
    done = 0
    if processes > 1:
        context = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(processes, mp_context=context, initializer=_follow_parent)
        try:
            waiting: deque[Future[Any]] = deque()
            following = iter(calls)
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
    """Makes a worker process end when its parent is killed, and leaves Ctrl+C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(process: BaseProcess) -> None:
    process.join()
    os._exit(1)
