"""How the scripts here let time pass: for a condition, or up to a moment that was chosen before the work began."""
import time


def reached(condition, limit):
    """Asks until what `condition` gives is true, and returns that; after `limit` seconds what it gave last."""
    deadline = time.monotonic() + limit
    while True:
        answer = condition()
        if answer or time.monotonic() > deadline:
            return answer
        time.sleep(0.05)


def wait_for(condition, what, limit=60):
    """The same, but ends the script if it does not come to it. `what` was waited for; or a function that tells."""
    answer = reached(condition, limit)
    if not answer:
        raise SystemExit(f"waited {limit} s: {what() if callable(what) else what}")
    return answer


def sleep_until(moment):
    time.sleep(max(0, moment - time.monotonic()))


class Pace:
    """Moments at even distances, however long the work between two of them takes."""

    def __init__(self, interval, most_behind=0.05):
        """After a delay no more than `most_behind` seconds are made up for."""
        self.interval, self.most_behind = interval, most_behind
        self.due = time.monotonic()

    def wait(self, over):
        """Returns at the next moment, or as soon as the event `over` is set."""
        self.due = max(self.due + self.interval, time.monotonic() - self.most_behind)
        over.wait(max(0, self.due - time.monotonic()))
