"""The cases of a GPU run: their order and their backends."""

import json

import pytest

from bench.paper.control import COLUMNS
from bench.plan.plan import Setup
from bench.quarter.cases import DTYPES, key
from bench.quarter.selection import FULL, REHEARSAL, TRAINING, groups
from temporal_zoo.ops import ops

BACKENDS = {name: list(op.backends) for name, op in ops().items()}


def made(name, agreed=frozenset(), sizes=FULL):
    (found,) = [group for group in groups(BACKENDS, sizes) if group.name == name]
    return found.cases(agreed)


def first_turn_s(name):
    """Estimated seconds of a group's first turn, which its `most_s` limits."""
    (found,) = [group for group in groups(BACKENDS, FULL) if group.name == name]
    estimate = sum(case.estimate_s for case in found.cases(frozenset()))
    return estimate if found.most_s is None else min(estimate, found.most_s)


def test_the_most_valuable_groups_come_first():
    names = ["agreement", "kernels", "control", "long clips", "sampling", "compiled"]
    assert [group.name for group in groups(BACKENDS, FULL)] == names


def test_every_backend_of_every_op_is_compared_our_kernels_first():
    found = [(case.what["op"], case.what["backend"], case.what["dtype"]) for case in made("agreement")]
    wanted = {
        (op, name, dtype) for op, names in BACKENDS.items() for name in names if name != "cpu" for dtype in DTYPES
    }
    assert wanted < set(found)
    assert {op for op, _, _ in found} == {*BACKENDS, "selective_block"}
    assert ["triton" in name for _, name, _ in found[:5]] == [True, True, True, True, False]
    assert found[0][2] == "float32"


@pytest.mark.parametrize("sizes", [FULL, REHEARSAL])
def test_cases_differ_and_are_plain_values(sizes):
    found = [case for group in groups(BACKENDS, sizes) for case in group.cases(frozenset())]
    assert len({case.key for case in found}) == len(found)
    for case in found:
        assert key(case.kind, json.loads(json.dumps(case.what))) == case.key
        assert case.estimate_s > 0


def test_the_first_groups_fit_into_eight_minutes_and_the_next_groups_into_a_second_call():
    assert sum(map(first_turn_s, ("agreement", "kernels", "control"))) < 7 * 60
    assert sum(map(first_turn_s, ("long clips", "sampling"))) < 6 * 60


def test_the_control_has_every_column_at_every_length_and_dtype():
    found = {(case.what["row"], case.what["setup"]["frames"], case.what["setup"]["dtype"]) for case in made("control")}
    rows = [column for column in COLUMNS if column.name in TRAINING]
    assert len(rows) == len(TRAINING)
    assert found == {(row.name, frames, dtype) for row in rows for frames in (16, 64, 256) for dtype in row.dtypes}


def test_the_planner_reads_the_setups():
    for case in made("control") + made("long clips") + made("sampling"):
        setup = Setup.from_dict(case.what["setup"])
        assert setup.preset == "paper-57.5M"
        assert set(setup.pins) <= set(BACKENDS)


def pins(row, dtype, agreed):
    setups = [case.request["setup"] for case in made("control", agreed) if case.what["row"] == row]
    (setup,) = [setup for setup in setups if (setup["frames"], setup["dtype"]) == (64, dtype)]
    return setup["backends"]


def test_only_the_first_backend_that_agrees_is_pinned():
    assert pins("bimamba", "bfloat16", frozenset()) == []
    agreed = {("selective_scan", name, "bfloat16") for name in ("torch", "triton", "reference")}
    assert pins("bimamba", "bfloat16", agreed) == ["selective_scan=triton"]
    assert pins("bimamba", "bfloat16", agreed - {("selective_scan", "triton", "bfloat16")}) == ["selective_scan=torch"]
    assert pins("bimamba", "float32", agreed) == []


def test_pins_do_not_change_the_identity_of_a_case():
    agreed = {("selective_scan", "triton", dtype) for dtype in DTYPES}
    for name in ("control", "long clips", "sampling"):
        assert [case.key for case in made(name)] == [case.key for case in made(name, agreed)]


def test_a_pin_of_a_column_has_priority():
    agreed = {("attention", "sdpa", "float32")}
    assert pins("attention with bias, weights held", "float32", agreed) == ["attention=reference"]
    assert pins("attention, fused", "float32", agreed) == ["attention=sdpa"]
