"""Ends a process whose parent is gone. Locust's workers would live on for a minute or more after a killed master.

Two signs are watched: a pipe that `redline run` holds open for as long as it lives, and the number of the parent
process, for workers that Locust has forked. Runs under gevent; knows nothing of traffic.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import gevent
import gevent.os

from redline.locust_process import LIFELINE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_EVERY_S = 0.5


def follow_parent(leave: Callable[[], object], *, forked: bool) -> None:
    """Call ``leave`` and end this process as soon as its parent is gone. ``forked``: by Locust, as a worker."""
    descriptor = os.environ.get(LIFELINE_VARIABLE)
    if descriptor is not None:
        gevent.spawn(_until_closed, int(descriptor), leave)
    elif forked:
        gevent.spawn(_until_orphaned, os.getppid(), leave)


def _until_closed(descriptor: int, leave: Callable[[], object]) -> None:
    while gevent.os.tp_read(descriptor, 1):
        pass
    _end(leave)


def _until_orphaned(parent: int, leave: Callable[[], object]) -> None:
    while os.getppid() == parent:
        gevent.sleep(_LOOK_EVERY_S)
    _end(leave)


def _end(leave: Callable[[], object]) -> None:
    try:
        leave()
    finally:
        os._exit(1)
