"""Records of the bench that older versions wrote are read."""

from pathlib import Path

from bench.sweep.runner import outcomes
from temporal_zoo._support.record import read

OLD = Path(__file__).parents[2] / "old" / "84bfd00"


def test_old_records_are_read():
    reading = read(OLD / "bench.jsonl")
    (environment,) = reading.environments
    found = outcomes(reading, environment)
    assert {(case.mixer, case.frames) for case in found} == {
        (mixer, frames) for mixer in ("attn", "bimamba:state=8") for frames in (4, 8)
    }
    for measured in found.values():
        assert [outcome.status for outcome in measured] == ["ok"]
        assert measured[0].time_ms.p50 > 0
        assert measured[0].options == {}
