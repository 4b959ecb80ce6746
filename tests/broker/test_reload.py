"""Options that are read again: what takes effect, what waits for a restart, and what changes nothing."""

import logging
from pathlib import Path

import pytest

from rocksmq.broker.access import Access
from rocksmq.broker.config import Config, load
from rocksmq.broker.reload import Reloader

from .support import in_trio

NOBODY_ASKED = Access(None, None)


class Bench:
    """A reloader on a file, and the options that it put into effect."""

    def __init__(self, file: Path, **flags: object) -> None:
        self.file = file
        self.applied: list[Config] = []
        file.write_text("")
        self.reloader = Reloader(load(file, {}, flags), self._read, lambda config, access: self.applied.append(config))
        self._flags = flags

    def _read(self) -> tuple[Config, Access]:
        return load(self.file, {}, self._flags), NOBODY_ASKED

    async def reload(self, content: str) -> None:
        self.file.write_text(content)
        await self.reloader.reload()

    @property
    def counts(self) -> dict[str, float]:
        return {
            f"{metric.name}{sample.labels}": sample.value
            for metric, samples in self.reloader.families()
            for sample in samples
            if sample is not None
        }


@pytest.fixture
def bench(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Bench:
    caplog.set_level(logging.INFO, "rocksmq")
    return Bench(tmp_path / "rocksmqd.toml")


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return found


@in_trio
async def test_given_a_level_that_changed_when_read_again_then_it_is_in_effect(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.reload('log_level = "debug"')
    assert [config.log_level for config in bench.applied] == ["debug"]
    assert told(caplog) == [("INFO", "the options were read again: log_level is debug")]
    await bench.reload('log_level = "debug"')
    assert told(caplog) == [("INFO", "the options were read again: nothing to do")]
    await bench.reload("")
    assert told(caplog) == [("INFO", "the options were read again: log_level is info")]
    assert len(bench.applied) == 3


@in_trio
async def test_given_options_that_need_a_restart_when_read_again_then_they_are_named_until_they_are_as_before(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    content = 'data_dir = "elsewhere"\nlog_format = "json"\n[limits]\nchannels_max = 7'
    expected = ("WARNING", "changed options take effect at the next start: data_dir, limits.channels_max")
    await bench.reload(content)
    assert told(caplog) == [("INFO", "the options were read again: log_format is json"), expected]
    await bench.reload(content)
    assert told(caplog) == [("INFO", "the options were read again: nothing to do"), expected]
    await bench.reload('log_format = "json"')
    assert told(caplog) == [("INFO", "the options were read again: nothing to do")]


@in_trio
async def test_given_a_flag_when_the_file_says_otherwise_then_the_flag_still_wins(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path / "rocksmqd.toml", log_level="warning")
    await bench.reload('log_level = "debug"')
    assert [config.log_level for config in bench.applied] == ["warning"]


BAD = {
    "no TOML": ("log_level", "TOML"),
    "an unknown option": ('flavour = "mint"', "flavour"),
    "a value that is none": ('log_level = "loud"', "log_level"),
    "one good and one bad": ('log_level = "debug"\nlisten = "nowhere"', "listen"),
    "nothing but a control character": ("\x00", "TOML"),
}


@pytest.mark.parametrize("case", BAD)
@in_trio
async def test_given_a_bad_file_when_read_again_then_nothing_changes_until_a_good_one(
    bench: Bench, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    content, fragment = BAD[case]
    await bench.reload(content)
    assert bench.applied == []
    ((level, text),) = told(caplog)
    assert level == "ERROR"
    assert text.startswith("the options could not be read again, and stay as they are: ")
    assert fragment in text
    assert bench.counts == {
        'rocksmq_config_reloads_total{result="ok"}': 0,
        'rocksmq_config_reloads_total{result="failed"}': 1,
        "rocksmq_config_last_reload_successful": 0,
    }
    await bench.reload('log_level = "debug"')
    assert len(bench.applied) == 1
    assert bench.counts["rocksmq_config_last_reload_successful"] == 1


@in_trio
async def test_given_a_file_that_is_gone_or_is_none_when_read_again_then_nothing_changes(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.file.unlink()
    await bench.reloader.reload()
    bench.file.mkdir()
    await bench.reloader.reload()
    assert [level for level, text in told(caplog) if str(bench.file) in text] == ["ERROR", "ERROR"]
    assert bench.applied == []


@in_trio
async def test_given_a_bug_in_reading_then_nothing_changes_and_its_traceback_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> tuple[Config, Access]:
        raise ZeroDivisionError

    applied: list[Config] = []
    reloader = Reloader(load(None, {}, {}), broken, lambda config, access: applied.append(config))
    await reloader.reload()
    assert applied == []
    assert caplog.records[0].exc_info is not None
