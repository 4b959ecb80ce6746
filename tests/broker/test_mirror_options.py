"""The table [mirror]: what it takes is what a mirror takes, and the command line that it becomes."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rocksmq.broker.config import BadConfiguration, load
from rocksmq.broker.mirror_options import MirrorSection, environment_of_child
from rocksmq.clients.mirror.options import BUFFER_BYTES_LEAST, MESSAGE_BYTES_LEAST, MirrorOptions
from rocksmq.protocol.errors import InvalidRequest

TO = "pulsar://pulsar.example:6650"


def toml(tmp_path: Path, **values: Any) -> Path:
    """A file with a table of them."""
    written = {True: "true", False: "false"}
    lines = [f"{key} = {written[value] if value is True or value is False else repr(value)}" for key, value in values.items()]
    file = tmp_path / "rocksmqd.toml"
    file.write_text("[mirror]\n" + "\n".join(lines) + "\n")
    return file


def options_of(section: MirrorSection) -> MirrorOptions:
    """The same, as the mirror has it."""
    return MirrorOptions(
        source="rocksmq://127.0.0.1:7660",
        target=section.to,
        channels=tuple(section.patterns),
        topic_template=section.topic_template,
        name=section.name,
        requires_deduplication=section.require_deduplication,
        too_large=section.too_large,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        message_bytes_max=section.message_bytes_max,
        key_header=section.key_header or None,
        buffer_bytes=section.buffer_bytes,
    )


def test_given_nothing_when_loaded_then_there_is_no_mirror_and_the_defaults_are_those_of_the_mirror() -> None:
    section = load(None, {}, {}).mirror
    assert not section.is_on
    told = options_of(section)
    usual = MirrorOptions(source=told.source, target=told.target, channels=())
    assert told == usual


def test_given_a_table_and_the_environment_when_loaded_then_each_value_has_its_origin(tmp_path: Path) -> None:
    file = toml(tmp_path, to=TO, channels="orders.*, bills", too_large="skip", require_deduplication=True)
    found = load(file, {"ROCKSMQ_MIRROR_NAME": "north", "ROCKSMQ_MIRROR_BUFFER_BYTES": "2000000"}, {})
    assert found.mirror.is_on
    assert found.mirror.patterns == ["orders.*", "bills"]
    assert (found.mirror.too_large, found.mirror.require_deduplication) == ("skip", True)
    assert (found.mirror.name, found.mirror.buffer_bytes) == ("north", 2_000_000)
    assert found.origins["mirror.to"] == str(file)
    assert found.origins["mirror.name"] == "ROCKSMQ_MIRROR_NAME"
    assert found.origins["mirror.too_large"] == str(file)
    assert found.origins["mirror.key_header"] == "default"


GOOD: list[dict[str, Any]] = [
    {},
    {"to": "pulsar+ssl://a.example:6651"},
    {"channels": "a,b*,[ab]?,c-1.d_2"},
    {"topic_template": "persistent://t/n/from-{channel}.rmq"},
    {"name": "x" * 193},
    {"too_large": "skip"},
    {"message_bytes_max": MESSAGE_BYTES_LEAST},
    {"buffer_bytes": BUFFER_BYTES_LEAST},
    {"key_header": "key"},
]
BAD: list[tuple[str, dict[str, Any]]] = [
    *[("to", {"to": text}) for text in ("x", "http://h:1", "rocksmq://h:1", "Pulsar://h:1")],
    *[("channels", {"channels": text}) for text in ("", " , ", "a b", "ä", "a/b", "a" * 201)],
    *[
        ("topic_template", {"topic_template": text})
        for text in (
            "",
            "{channel}",
            "persistent://a/b/c",
            "persistent://a/b/{channel}{channel}",
            "persistent://a/b/{channel}/{x}",
        )
    ],
    *[("name", {"name": text}) for text in ("", "a b", "-a", "x" * 194, "x" * 201, "a: b")],
    *[("too_large", {"too_large": text}) for text in ("", "drop", "Stop")],
    *[("message_bytes_max", {"message_bytes_max": count}) for count in (0, -1, MESSAGE_BYTES_LEAST - 1)],
    *[("buffer_bytes", {"buffer_bytes": count}) for count in (0, BUFFER_BYTES_LEAST - 1)],
]


@pytest.mark.parametrize("values", GOOD, ids=str)
def test_given_values_that_a_mirror_takes_when_loaded_then_the_broker_takes_them(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    section = load(toml(tmp_path, **({"to": TO, "channels": "orders"} | values)), {}, {}).mirror
    options_of(section).checked()


@pytest.mark.parametrize(("key", "values"), BAD, ids=str)
def test_given_values_that_a_mirror_refuses_when_loaded_then_the_broker_refuses_them_and_names_the_key(
    tmp_path: Path, key: str, values: dict[str, Any]
) -> None:
    usual: dict[str, Any] = {"to": TO, "channels": "orders"} | values
    with pytest.raises(BadConfiguration, match=rf"rocksmqd\.toml: mirror\.{key} "):
        load(toml(tmp_path, **usual), {}, {})
    with pytest.raises(InvalidRequest):
        options_of(MirrorSection(**usual)).checked()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("mirror = 1", "mirror is a table: write [mirror] above its options"),
        ("[mirror]\ncolour = 1", "there is no option 'mirror.colour'"),
        ("[mirror]\nrequire_deduplication = 'perhaps'", "mirror.require_deduplication 'perhaps' is not true or false"),
    ],
)
def test_given_a_table_that_is_none_when_loaded_then_that_is_told(tmp_path: Path, text: str, wanted: str) -> None:
    file = tmp_path / "rocksmqd.toml"
    file.write_text(text)
    with pytest.raises(BadConfiguration, match=re.escape(wanted)):
        load(file, {}, {})


def test_given_files_that_cannot_be_used_when_loaded_then_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "token").write_text("secret\n")
    usual = {"to": TO, "channels": "orders"}
    for key, name, wanted in (
        ("pulsar_token_file", "missing", "cannot be read: No such file"),
        ("pulsar_token_file", "empty", "it is empty"),
        ("pulsar_ca", "token", r"it is used with pulsar\+ssl:// only"),
    ):
        with pytest.raises(BadConfiguration, match=rf"mirror\.{key} .*{wanted}"):
            load(toml(tmp_path, **usual, **{key: str(tmp_path / name)}), {}, {})
    load(toml(tmp_path, **usual, pulsar_token_file=str(tmp_path / "token")), {}, {})


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", "127.0.0.1:7"),
        ("0.0.0.0", "127.0.0.1:7"),
        ("::", "[::1]:7"),
        ("::1", "[::1]:7"),
        ("10.0.0.1", "10.0.0.1:7"),
    ],
)
def test_given_where_the_broker_listens_when_its_mirror_is_started_then_it_is_told_how_to_reach_it(
    host: str, reached: str
) -> None:
    assert f"--from=rocksmq://{reached}" in MirrorSection(to=TO, channels="a").command(host, 7)


def test_given_a_table_when_made_a_command_line_then_all_of_it_is_there(tmp_path: Path) -> None:
    section = MirrorSection(
        TO, "a, b.*", "persistent://t/n/{channel}", "north", True, "skip", 70_000, "-key", 2_000_000, "token", "ca"
    )
    assert section.command("127.0.0.1", 7660) == [
        *(sys.executable, "-P", "-m", "rocksmq.clients.cli", "--json", "mirror", "--supervised"),
        *("--from=rocksmq://127.0.0.1:7660", f"--to={TO}", "--channels=a,b.*", "--topic-template=persistent://t/n/{channel}"),
        *("--name=north", "--too-large=skip", "--message-bytes-max=70000", "--buffer-bytes=2000000", "--key-header=-key"),
        *("--pulsar-token-file=token", "--pulsar-ca=ca", "--require-deduplication"),
    ]


def options_taken(arguments: Sequence[str]) -> set[str]:
    return {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}


def test_given_the_command_line_when_the_mirror_is_asked_then_it_has_each_option_of_it() -> None:
    from rocksmq.clients.cli.mirror import mirror

    known = {name for parameter in mirror.params for name in parameter.opts}
    section = MirrorSection(TO, "a", key_header="k", require_deduplication=True, pulsar_token_file="t", pulsar_ca="c")
    assert options_taken(section.command("127.0.0.1", 7660)) - {"--json"} <= known


def test_given_the_brokers_environment_when_a_mirror_is_started_then_it_inherits_no_option_of_the_broker() -> None:
    found = environment_of_child({"PATH": "/bin", "ROCKSMQ_URL": "x", "ROCKSMQ_MIRROR_TO": "y", "PYTHONPATH": "z"})
    assert found == {"PATH": "/bin", "PYTHONPATH": "z"}


def test_given_no_client_of_pulsar_when_a_mirror_is_wanted_then_it_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pulsar", None)
    with pytest.raises(OSError, match=r"pip install 'rocksmq\[pulsar\]'"):
        MirrorSection(TO, "a").require_client()
    MirrorSection().require_client()
