"""The lab: experiments on training in rounds, many at once, each measured beside what theory says of it.

An experiment is one file in ``experiments/``, found by its name; ``conduct`` runs it, ``report.write_lab`` shows it.
"""
