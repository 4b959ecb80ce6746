"""Benchmarks of one broker from one client, and what the machine gives without any broker, in one run.

`run.Bench` makes the rounds of a suite; `rocksmq bench` shows their rows.
"""
