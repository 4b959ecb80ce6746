"""From one channel to another, each message once, even if this process dies.

    python pipeline.py [URL]

Reads `orders`, writes `invoices`, and commits what is done. Started over after a crash it gets the last orders again;
but each invoice carries its order's id as its sequence, and the broker stores no sequence twice. Ends after 5 s without
an order. The broker may be restarted meanwhile.
"""

import sys

from rocksmq.clients import Client

with Client(sys.argv[1] if len(sys.argv) > 1 else None) as mq:
    mq.create_channel("orders")
    mq.create_channel("invoices")
    mq.create_consumer_group("orders", "invoicing")
    with (
        mq.consumer("orders", "invoicing", ack="manual") as orders,
        mq.producer("invoices", name="invoicing") as invoices,
    ):
        while batch := orders.receive_batch(timeout=5.0):
            for order in batch:
                invoices.send(b"invoice for " + order.payload, sequence=order.id)
            invoices.flush()
            orders.commit()
    print(f"{invoices.acked} invoices")
