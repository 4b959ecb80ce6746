"""Names of channels and groups (SPEC §3.1): safe in paths, keys, logs and pages by construction."""

import re

from .errors import InvalidRequest

NAME_BYTES_MAX = 200
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def checked_name(kind: str, name: object) -> str:
    """``name`` itself if it is allowed; ``kind`` ("channel", "group") is named in the InvalidRequest otherwise."""
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    shown = repr(name) if len(repr(name)) <= 60 else repr(name)[:57] + "..."
    raise InvalidRequest(
        f"{kind} name {shown} is not allowed: 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 . _ -, the first a letter or digit"
    )
