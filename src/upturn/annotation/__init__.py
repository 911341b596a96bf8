"""What people are asked about a run, and what comes of their answers; the page that shows it is ``feedback``.

    question   a run's samples -> tasks of a poll;  shelf  what is shown, out of memory until it is
    publish    a round's poll, opened and closed;  said  votes -> groups, and columns that curators read
"""
