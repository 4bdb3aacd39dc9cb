"""Keeps the garbage collector from stopping a node.

A full collection looks at every object of the machine: 0.3 s with a million locks, an election timeout.  So what stays for long
is set aside for good, and no full collection starts by itself: our records take part in no cycles that outlive them, and those
of short life (errors, connections) are found by the two young generations.

Nothing is changed in a process that did not ask for it (`tame`): a node may live inside an application.
"""

import gc

#: Objects more than before that make a collection of the youngest; that many of these make one of the middle generation too.  It
#: looks at what came since its last, at most the product of the two: a machine that grows must not pay for it in one piece.
_YOUNG, _YOUNG_ROUNDS = 5_000, 5

_tamed = False


def tame() -> None:
    """Begin to keep the collector short, in this process, for good."""
    global _tamed
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _YOUNG_ROUNDS, 1_000_000)
    _tamed = True


def keep() -> None:
    """Set aside all objects there are: a slice of a machine being made is among them.  Costs next to nothing."""
    if _tamed:
        gc.freeze()
