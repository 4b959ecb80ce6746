"""`python -m rocksmq.clients.cli`, as a broker starts its mirror."""

from .root import main

if __name__ == "__main__":
    main(prog_name="rocksmq")
