"""How often Python's garbage collector looks, for the whole process and for good."""

import gc

# New objects before generation 0 is collected, and collections of a generation before the next one's (see gc). A
# call in flight makes thousands of objects and hardly a cycle, an import a million and none: looking after every 700
# objects, as Python does by itself, takes a quarter of their time.
COLLECT_AFTER = 50_000, 50, 50


def collect_seldom() -> None:
    """Let the collector look only after COLLECT_AFTER."""
    gc.set_threshold(*COLLECT_AFTER)
