"""rocksmqd, for now."""
import sys
import socket
import trio
from .engine import RocksMQ
from .server import Server
from .limits import Limits
from .durability import Durability
import signal

def main() -> None:
    import argparse
    p=argparse.ArgumentParser(); p.add_argument("--data-dir",default="data"); p.add_argument("--listen",default="127.0.0.1:7660"); p.add_argument("--durability",default="fsync"); p.add_argument("--http")
    a=p.parse_args()
    async def run():
        async with RocksMQ(a.data_dir, durability=Durability.parse(a.durability)) as mq:
            host,port=a.listen.rsplit(":",1)
            l=socket.create_server((host,int(port)),backlog=1024)
            print("listening on %s:%d"%l.getsockname(),flush=True)
            server=Server(mq.core,Limits())
            with trio.open_signal_receiver(signal.SIGTERM,signal.SIGINT) as sigs:
                async with trio.open_nursery() as n:
                    n.start_soon(server.serve,l)
                    async for s in sigs: break
                    n.cancel_scope.cancel()
    trio.run(run)
if __name__=="__main__": main()
