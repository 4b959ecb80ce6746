"""Options: their layers, their checks, and what a refusal names. What is told of bad ones on the way stands in integration."""

import pytest

from rocksmq.broker.config import BadConfiguration, Config, load


def refusal(**flags: object) -> str:
    with pytest.raises(BadConfiguration) as caught:
        load(None, {}, flags)
    return str(caught.value)


def test_given_no_options_when_loaded_then_metrics_and_health_are_on_loopback() -> None:
    assert load(None, {}, {}).http_address == ("127.0.0.1", 7661)
    assert Config().origins == {}


@pytest.mark.parametrize(
    ("text", "address"), [("[::1]:1", ("::1", 1)), ("localhost:0", ("localhost", 0)), ("127.0.0.9:65535", ("127.0.0.9", 65535))]
)
@pytest.mark.parametrize("key", ["listen", "http"])
def test_given_an_address_when_loaded_then_its_host_and_port_are_known(key: str, text: str, address: tuple[str, int]) -> None:
    config = load(None, {}, {key: text})
    assert (config.address if key == "listen" else config.http_address) == address


def test_given_off_when_loaded_then_there_is_no_address() -> None:
    assert load(None, {}, {"http": "off"}).http_address is None


@pytest.mark.parametrize(
    "text", ["", "127.0.0.1", ":7661", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1", "Off"]
)
@pytest.mark.parametrize("key", ["listen", "http"])
def test_given_no_address_when_loaded_then_the_option_and_an_example_are_told(key: str, text: str) -> None:
    told = refusal(**{key: text})
    assert told.startswith(f"--{key} {text!r}: not HOST:PORT, for example 127.0.0.1:766")


@pytest.mark.parametrize("text", ["0.0.0.0:1", "[::]:1", "192.168.0.1:1", "broker.example:1"])
@pytest.mark.parametrize("key", ["listen", "http"])
def test_given_an_address_that_others_reach_when_loaded_then_it_takes_insecure(key: str, text: str) -> None:
    assert "--insecure" in refusal(**{key: text})
    assert load(None, {}, {key: text, "insecure": True}).origins[key] == f"--{key}"
