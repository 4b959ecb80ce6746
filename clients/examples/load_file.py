"""Load a file, each line once, however often this is started over.

    python load_file.py FILE [URL]

A producer with a name: each line carries its number as its sequence, and the broker keeps the last one that is stored.
Started again after a crash, in the middle or at the end, it goes on exactly behind that.
"""

import sys

from rocksmq.clients import Client

path = sys.argv[1]
with Client(sys.argv[2] if len(sys.argv) > 2 else None) as mq:
    mq.create_channel("lines")
    with mq.producer("lines", name="loader") as producer, open(path, "rb") as lines:
        if producer.last_sequence is not None:
            print(f"going on behind line {producer.last_sequence!r}")
        for number, line in enumerate(lines, start=1):
            producer.send(line.rstrip(b"\n"), sequence=number)  # what is stored already is not stored again
    print(f"{producer.last_sequence or 0!r} lines are stored")
