import pytest

from rocksmq.clients.mirror.options import MESSAGE_BYTES_LEAST, MirrorOptions
from rocksmq.protocol.errors import InvalidRequest

HERE, THERE = "rocksmq://127.0.0.1:7660", "pulsar://127.0.0.1:6650"


def test_given_the_two_urls_when_checked_then_they_tell_the_direction() -> None:
    assert MirrorOptions(source=HERE, target=THERE, channels=("orders.*",)).checked().is_forward
    assert not MirrorOptions(source=THERE, target=HERE, channels=("orders",)).checked().is_forward


def test_given_a_channel_when_named_then_group_topic_and_producer_follow_from_name_and_template() -> None:
    options = MirrorOptions(
        source=HERE, target=THERE, channels=("*",), name="eu", topic_template="persistent://a/b/x-{channel}"
    )
    assert options.group == "mirror.eu"
    assert options.topic("orders") == "persistent://a/b/x-orders"
    assert options.producer_name("orders") == "rocksmq.mirror.eu.orders"


def test_given_tokens_when_shown_then_they_are_left_out() -> None:
    options = MirrorOptions(source=HERE, target=THERE, channels=("*",), token="secret1", pulsar_token="secret2")
    assert "secret" not in repr(options)


@pytest.mark.parametrize("scheme", ["pulsar", "pulsar+ssl"])
@pytest.mark.parametrize("is_forward", [True, False])
def test_given_a_secret_in_an_address_of_pulsar_when_checked_then_it_is_refused_and_not_repeated(
    scheme: str, is_forward: bool
) -> None:
    there = f"{scheme}://user:secret@host:6650"
    source, target = (HERE, there) if is_forward else (there, HERE)
    with pytest.raises(InvalidRequest, match="'@' is not allowed") as caught:
        MirrorOptions(source=source, target=target, channels=("orders",)).checked()
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"target": HERE}, "rocksmq://host:port"),
        ({"source": THERE}, "rocksmq://host:port"),
        ({"source": "http://x"}, "http://x"),
        ({"channels": ()}, "no channels"),
        ({"channels": ("a b",)}, "a b"),
        ({"source": THERE, "target": HERE, "channels": ("orders.*",)}, "orders"),
        ({"topic_template": "persistent://public/default/x"}, "topic_template"),
        ({"topic_template": "non-persistent://public/default/{channel}"}, "topic_template"),
        ({"topic_template": "persistent://public/default/{channel}{channel}{0}"}, "topic_template"),
        ({"name": "a/b"}, "mirror name"),
        ({"name": "a" * 194}, "193 characters"),
        ({"too_large": "drop"}, "too_large"),
        ({"message_bytes_max": MESSAGE_BYTES_LEAST - 1}, "message_bytes_max"),
        ({"buffer_bytes": 0}, "buffer_bytes"),
        ({"timeout": 0}, "timeout"),
        ({"key_header": ""}, "key_header"),
    ],
)
def test_given_something_that_is_not_allowed_when_checked_then_it_is_named(change: dict[str, object], named: str) -> None:
    given: dict[str, object] = {"source": HERE, "target": THERE, "channels": ("orders",)} | change
    with pytest.raises(InvalidRequest, match=r"(?s)^.*" + named.replace("(", r"\(")):
        MirrorOptions(**given).checked()  # type: ignore[arg-type]
