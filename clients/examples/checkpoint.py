"""A stream into a file, each row once, even if this process dies: the positions are stored with the output.

    python checkpoint.py URL CHANNEL...

URL is that of a RocksMQ broker, or of Apache Pulsar, where a channel is a topic: pulsar://127.0.0.1:6650.

Appends the rows of a time-tick stream to `rows.txt`, and after each pack replaces `checkpoint.json`: where the pack ended,
and how long the output is then. The checkpoint comes second, when the output is on disk, and as a whole, by a rename. So it
never tells of output that is not there; what was appended behind it when the process died is cut off, and read again.

The broker keeps a position of the subscription too, which says how far the reader has come, not what its output holds: here the
checkpoint decides. Ends after 2 s without a pack.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rocksmq.clients.msgstream import InsertMsg, MsgPosition, msg_stream_factory

OUTPUT, CHECKPOINT = Path("rows.txt"), Path("checkpoint.json")


def load(channels: Sequence[str]) -> tuple[list[MsgPosition], int]:
    """Positions, and the size of the output; at first the beginning of each channel."""
    if not CHECKPOINT.exists():
        return [MsgPosition(channel) for channel in channels], 0
    stored = json.loads(CHECKPOINT.read_text())
    return [MsgPosition(**position) for position in stored["positions"]], stored["size"]


def save(positions: Sequence[MsgPosition], size: int) -> None:
    """All of it, or the checkpoint before stays."""
    new = CHECKPOINT.with_suffix(".new")
    with new.open("w") as file:
        json.dump({"positions": [position._asdict() for position in positions], "size": size}, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(CHECKPOINT)


url, *channels = sys.argv[1:]
positions, size = load(channels)
with OUTPUT.open("ab") as output, msg_stream_factory(url).new_tt_msg_stream() as stream:
    output.truncate(size)
    stream.as_consumer(channels, "checkpoint")
    stream.start()
    stream.seek(positions)
    while pack := stream.consume(timeout=2.0):
        for msg in pack.msgs:
            if isinstance(msg, InsertMsg):
                output.writelines(row + b"\n" for row in msg.rows)
        output.flush()
        os.fsync(output.fileno())
        save(pack.end_positions, output.seek(0, os.SEEK_END))
print(f"{OUTPUT.stat().st_size} bytes of rows")
