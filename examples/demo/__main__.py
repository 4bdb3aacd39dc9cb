"""`make demo`: singleton tasks under fire, in about half a minute.

Each step does something to the processes that hold or grant a lock, and looks at what the tasks themselves wrote down.  The exit
code says whether every claim held.

    story.py    what happens           stage.py    the processes       show.py     what you see
    shop.py     the Celery app         publish.py  who enqueues        ledger.py   what really happened
"""

import logging
import signal
import sys
import time

from examples.demo.show import Show
from examples.demo.stage import Stage
from examples.demo.story import Story


def main() -> int:
    logging.getLogger("coord").addHandler(logging.NullHandler())  # what the client says of killed nodes is no news here
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: clear up, then go
    began = time.monotonic()
    show = Show()
    show.open()
    try:
        with Stage() as stage:
            Story(stage, show).tell()
            left = stage.clear()
            show.claim("nothing is left behind", f"{left} processes left" if left else "no process is left running", left == 0)
    except KeyboardInterrupt:
        show.say("[yellow]stopped; nothing is left running[/]")
        return 130
    except TimeoutError as error:
        show.claim("the demo comes to its end", str(error), False)
    return 0 if show.close(time.monotonic() - began) else 1


sys.exit(main())
