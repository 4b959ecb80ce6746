"""How the real Pulsar of the tests is fetched."""

from pathlib import Path

import pytest

from tests.helpers import pulsar


def test_given_a_maven_that_does_not_end_when_pulsar_is_fetched_then_that_is_told_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maven = tmp_path / "mvn"
    maven.write_text("#!/bin/sh\nexec sleep 60\n")
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(pulsar, "HOME", tmp_path / "home")
    monkeypatch.setattr(pulsar, "_ARCHIVE", tmp_path / "home" / "classes.jsa")
    monkeypatch.setattr(pulsar, "FETCH_SECONDS", 0.1)
    with pytest.raises(pulsar.PulsarFailed, match=r"Maven has not fetched .*pulsar-server-distribution.* within 0\.1 s"):
        pulsar.fetch()
