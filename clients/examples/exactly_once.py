"""Exactly once, even if this process dies: the position is stored with the output, in one transaction.

    python exactly_once.py [URL]

Sums up the channel `payments` in an SQLite database. It reads by fetch, which moves nothing on the broker: how far
it came stands in the same database, so that after a crash sum and position belong together.
"""

import sqlite3
import sys

from rocksmq.clients import Client

database = sqlite3.connect("payments.db", isolation_level=None)
database.execute("CREATE TABLE IF NOT EXISTS state (id INTEGER PRIMARY KEY CHECK (id = 1), position TEXT, total INTEGER)")
database.execute("INSERT OR IGNORE INTO state VALUES (1, '0', 0)")

with Client(sys.argv[1] if len(sys.argv) > 1 else None) as mq:
    mq.create_channel("payments")
    position, total = database.execute("SELECT position, total FROM state").fetchone()
    position = int(position)  # ids are unsigned 64-bit integers, more than SQLite's
    while batch := mq.fetch("payments", position, timeout=1.0):
        total += sum(map(int, batch.payloads))
        position = batch.next_position
        database.execute("BEGIN IMMEDIATE")
        database.execute("UPDATE state SET position = ?, total = ?", (str(position), total))
        database.execute("COMMIT")
    print(f"total {total}")
