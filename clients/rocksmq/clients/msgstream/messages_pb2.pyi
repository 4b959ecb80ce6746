from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Header(_message.Message):
    __slots__ = ("type", "id", "begin_ts", "end_ts")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    BEGIN_TS_FIELD_NUMBER: _ClassVar[int]
    END_TS_FIELD_NUMBER: _ClassVar[int]
    type: int
    id: int
    begin_ts: int
    end_ts: int
    def __init__(self, type: _Optional[int] = ..., id: _Optional[int] = ..., begin_ts: _Optional[int] = ..., end_ts: _Optional[int] = ...) -> None: ...

class AnyMsg(_message.Message):
    __slots__ = ("header", "hash_keys")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    HASH_KEYS_FIELD_NUMBER: _ClassVar[int]
    header: Header
    hash_keys: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., hash_keys: _Optional[_Iterable[int]] = ...) -> None: ...

class InsertMsg(_message.Message):
    __slots__ = ("header", "hash_keys", "timestamps", "row_ids", "rows")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    HASH_KEYS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMPS_FIELD_NUMBER: _ClassVar[int]
    ROW_IDS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    header: Header
    hash_keys: _containers.RepeatedScalarFieldContainer[int]
    timestamps: _containers.RepeatedScalarFieldContainer[int]
    row_ids: _containers.RepeatedScalarFieldContainer[int]
    rows: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., hash_keys: _Optional[_Iterable[int]] = ..., timestamps: _Optional[_Iterable[int]] = ..., row_ids: _Optional[_Iterable[int]] = ..., rows: _Optional[_Iterable[bytes]] = ...) -> None: ...

class DeleteMsg(_message.Message):
    __slots__ = ("header", "hash_keys", "timestamps", "primary_keys")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    HASH_KEYS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMPS_FIELD_NUMBER: _ClassVar[int]
    PRIMARY_KEYS_FIELD_NUMBER: _ClassVar[int]
    header: Header
    hash_keys: _containers.RepeatedScalarFieldContainer[int]
    timestamps: _containers.RepeatedScalarFieldContainer[int]
    primary_keys: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., hash_keys: _Optional[_Iterable[int]] = ..., timestamps: _Optional[_Iterable[int]] = ..., primary_keys: _Optional[_Iterable[int]] = ...) -> None: ...

class SearchMsg(_message.Message):
    __slots__ = ("header", "hash_keys", "payload")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    HASH_KEYS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    header: Header
    hash_keys: _containers.RepeatedScalarFieldContainer[int]
    payload: bytes
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., hash_keys: _Optional[_Iterable[int]] = ..., payload: _Optional[bytes] = ...) -> None: ...

class SearchResultMsg(_message.Message):
    __slots__ = ("header", "hash_keys", "payload")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    HASH_KEYS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    header: Header
    hash_keys: _containers.RepeatedScalarFieldContainer[int]
    payload: bytes
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., hash_keys: _Optional[_Iterable[int]] = ..., payload: _Optional[bytes] = ...) -> None: ...

class SegStatisticsMsg(_message.Message):
    __slots__ = ("header", "hash_keys", "payload")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    HASH_KEYS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    header: Header
    hash_keys: _containers.RepeatedScalarFieldContainer[int]
    payload: bytes
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., hash_keys: _Optional[_Iterable[int]] = ..., payload: _Optional[bytes] = ...) -> None: ...

class TimeTickMsg(_message.Message):
    __slots__ = ("header", "hash_keys")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    HASH_KEYS_FIELD_NUMBER: _ClassVar[int]
    header: Header
    hash_keys: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., hash_keys: _Optional[_Iterable[int]] = ...) -> None: ...

class TimeSyncMsg(_message.Message):
    __slots__ = ("header", "hash_keys")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    HASH_KEYS_FIELD_NUMBER: _ClassVar[int]
    header: Header
    hash_keys: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., hash_keys: _Optional[_Iterable[int]] = ...) -> None: ...
