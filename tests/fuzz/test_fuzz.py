"""Every target takes what is kept of earlier runs, and inputs by chance, and notices what it is there for."""

import importlib.util
import tracemalloc
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rocksmq.protocol import cbor as cbor_module
from rocksmq.protocol.frames import FrameDecoder
from rocksmq.protocol.messages import MessageBatch

from .__main__ import by_chance
from .guided import fuzz
from .mutations import mutated
from .seeds import seeds_of
from .targets import TARGETS

RUNS = {"http": 300}
RUNS_OF_OTHERS = 10_000
GUIDED_RUNS = 3_000
ALLOCATION_BYTES_MAX = 256 * 1024  # for an input of some hundred bytes; an answer of HTTP has buffers of 64 KiB
every_target = pytest.mark.parametrize("target", TARGETS)


@every_target
def test_given_what_is_known_when_a_target_takes_it_then_nothing_is_found(target: str) -> None:
    seeds = seeds_of(target)
    assert seeds
    for data in seeds:
        TARGETS[target](data)


@every_target
def test_given_inputs_by_chance_when_a_target_takes_them_then_nothing_is_found(target: str) -> None:
    runs = RUNS.get(target, RUNS_OF_OTHERS)
    found = by_chance(target, runs, "7660")
    assert (found.finding, found.executions) == (None, runs)


@every_target
def test_given_inputs_by_chance_when_a_target_takes_them_then_its_memory_is_bounded(target: str) -> None:
    execute, seeds = TARGETS[target], [seed for seed in seeds_of(target) if len(seed) < 1_000]
    execute(seeds[0])
    tracemalloc.start()
    try:
        for data in mutated(seeds, 200, Random(7660)):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            execute(data)
            assert tracemalloc.get_traced_memory()[1] - before < ALLOCATION_BYTES_MAX, data.hex()
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("target", ["cbor", "request", "reply", "hello"])
def test_given_a_scan_that_lets_everything_through_when_fuzzed_then_it_is_found(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(_: object) -> list[object]:
        return []

    monkeypatch.setattr(cbor_module, "scan", blind)
    assert by_chance(target, RUNS_OF_OTHERS, "7660").finding


def test_given_a_batch_that_trusts_its_lengths_when_fuzzed_then_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def trusting(_: MessageBatch) -> Any:
        raise KeyError("a bug")

    monkeypatch.setattr(MessageBatch, "_split_headers", trusting)
    assert by_chance("batch", RUNS_OF_OTHERS, "7660").finding


def test_given_a_decoder_that_loses_a_byte_when_fuzzed_then_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = FrameDecoder.received

    def received(decoder: FrameDecoder, count: int) -> None:
        original(decoder, count - (count == 7))

    monkeypatch.setattr(FrameDecoder, "received", received)
    assert by_chance("frames", RUNS_OF_OTHERS, "7660").finding


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="no Atheris here: pip install atheris")
def test_given_a_guided_run_when_it_ends_then_it_says_how_many_and_keeps_what_it_reached(tmp_path: Path) -> None:
    found = fuzz("request", GUIDED_RUNS, 7660, tmp_path)
    assert (found.finding, found.executions) == (None, GUIDED_RUNS)
    assert found.covered > 100
    assert len(list((tmp_path / "request").iterdir())) > len(seeds_of("request"))
