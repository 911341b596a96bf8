"""Human feedback: polls, tasks, the database of votes, vote statistics, and votes as preference groups.

tasks: a run's samples -> tasks of a poll;  content: what the candidates are, out of memory until it is displayed
poll: a round's poll, opened and closed;  to_groups: votes -> groups, and fields that curators read
modes: the ways to ask annotators, one file each;  db: the database;  statistics: agreement, reliability, ranking
"""
