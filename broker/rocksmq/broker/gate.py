"""Who gets in, and what each may do. All of it derives from the table of operations: the permission, and on which channels."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from rocksmq.protocol.errors import PermissionDenied
from rocksmq.protocol.operations import CreateChannels, Operation
from rocksmq.protocol.permissions import Permission, Scope

from . import columns
from .auth import EVERYBODY, Authority, Token
from .channels import Channels, Listing, names_of
from .limits import Limits


class Gate:
    """Who gets in by ``authority``, and what each may do: decided by the names that ``channels`` have now."""

    def __init__(self, channels: Channels, limits: Limits, authority: Authority = EVERYBODY) -> None:
        self.authority = authority
        self._channels = channels
        self._limits = limits
        self._names: dict[Scope, Callable[[Any], Iterable[str]]] = {
            Scope.CHANNEL: lambda request: (request.channel,),
            Scope.CHANNELS: lambda request: request.channels,
            Scope.NUMBERS: lambda request: self._numbered(columns.channel_numbers(request.numbers, limits)),
            Scope.STARTS: lambda request: self._numbered(columns.starts(request.starts, limits)),
            Scope.MADE: self._made,
        }

    def passed(self, token: Token, op: Operation, request: Any) -> Any:
        """The request as it may be done. Raises PermissionDenied, and as the operation would: InvalidRequest, LimitExceeded."""
        if op.scope is Scope.NONE or token.allows_all(op.permission):
            return request
        if op.scope is Scope.LISTED:
            return Listing(request, partial(token.allows, op.permission))
        needed = "any right" if op.permission is Permission.DESCRIBE else op.permission
        lacking = "*" if op.scope is Scope.ALL else None
        if lacking is None:
            lacking = next((name for name in self._names[op.scope](request) if not token.allows(op.permission, name)), None)
        if lacking is not None:
            self.authority.denied.value += 1
            if op.scope in (Scope.NUMBERS, Scope.STARTS):
                lacking = "one of these channels"  # whoever guesses a number learns no name by it
            raise PermissionDenied(f"the token {token.name} does not permit {op.name}: it needs {needed} on {lacking}")
        return request

    def _numbered(self, numbers: Iterable[int]) -> Iterable[str]:
        """The names of those that are there; of the others the operation says itself that they are not."""
        found = (self._channels.get_numbered(number) for number in numbers)
        return (channel.name for channel in found if channel is not None)

    def _made(self, request: CreateChannels) -> Iterable[str]:
        columns.check_channel_count(request.channel_count, self._limits)
        return names_of(request)
