"""The fail points of connections: accepting, HELLO, requests, replies. All are reached in the loop's thread."""

import select
import socket
from typing import Any
from weakref import WeakKeyDictionary

from rocksmq.broker import daemon
from rocksmq.broker.connection import Connection
from rocksmq.broker.session import Session
from rocksmq.protocol.cbor import Buffer
from rocksmq.protocol.operations import Operation

from .faults import Faults, Method, wrap


class _Listener(socket.socket):
    """A listening socket that reaches its point only when a connection is really there."""

    faults: Faults

    def accept(self) -> tuple[socket.socket, Any]:
        waiting = select.poll()
        waiting.register(self, select.POLLIN)
        if waiting.poll(0):
            self.faults.reach("on-accept")
        return super().accept()


def install(faults: Faults) -> None:
    """Wrap the server of this process."""
    _install_in_requests(faults)
    _install_in_replies(faults)


def _install_in_requests(faults: Faults) -> None:
    def listen(original: Method, host: str, port: int) -> socket.socket:
        listener = _Listener(fileno=original(host, port).detach())
        listener.faults = faults
        return listener

    def hello(original: Method, session: Session, *arguments: Any) -> None:
        faults.reach("on-hello")
        original(session, *arguments)

    wrap(daemon, "_listen", listen)
    wrap(Session, "_hello", hello)


def _install_in_replies(faults: Faults) -> None:
    operations: WeakKeyDictionary[Session, dict[int, str]] = WeakKeyDictionary()
    answering: list[str] = []  # the operation whose reply is on its way to the connection

    def submit(original: Method, session: Session, op: Operation, correlation: int, *arguments: Any) -> None:
        operation = op.name.lower().replace("_", "-")
        faults.reach("on-request", operation)
        operations.setdefault(session, {})[correlation] = operation
        original(session, op, correlation, *arguments)

    def answer(original: Method, session: Session, correlation: int, reply: Any) -> None:
        operation = operations[session].pop(correlation)
        try:
            faults.reach("before-reply", operation)
        except ConnectionResetError:
            session.connection.close()
        answering.append(operation)
        try:
            original(session, correlation, reply)
        finally:
            answering.clear()

    def send(original: Method, connection: Connection, buffers: list[Buffer]) -> None:
        due = faults.due("during-reply", answering[0]) if answering else []
        if not due:
            original(connection, buffers)
            return
        whole = b"".join(buffers)
        half = len(whole) // 2
        original(connection, [whole[:half]])
        try:
            faults.strike(due)
        except ConnectionResetError:
            connection.close()
        original(connection, [whole[half:]])

    wrap(Session, "_submit", submit)
    wrap(Session, "_answer", answer)
    wrap(Connection, "send", send)
