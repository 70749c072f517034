"""Plans of training steps that are counted while the GPU measures."""

import pytest

from bench.quarter.plans import BackgroundPlans, plan_summary
from bench.quarter.selection import FULL, REHEARSAL, groups
from temporal_zoo.ops import ops

BACKENDS = {name: list(op.backends) for name, op in ops().items()}


def made(name, agreed=frozenset(), sizes=FULL):
    (found,) = [group for group in groups(BACKENDS, sizes) if group.name == name]
    return found.cases(agreed)


def test_a_plan_has_bytes_and_says_whether_they_fit():
    (case, *_) = made("control", sizes=REHEARSAL)
    plan = plan_summary("24GiB", case.what["setup"])
    assert plan["fit"] == "yes"
    assert 0 < plan["stored"] < plan["peak"] < 2**30


def test_a_setup_without_a_plan_says_why():
    assert "ConfigError" in plan_summary("24GiB", {"preset": "nobody's"})["error"]


@pytest.mark.slow
def test_plans_come_from_other_processes():
    few = made("control", {("attention", "sdpa", "bfloat16")}, sizes=REHEARSAL)[:2]
    with BackgroundPlans("24GiB") as plans:
        plans.expect(few)
        assert [plans.of(case)["fit"] for case in few] == ["yes", "yes"]
        assert plans.of(made("agreement")[0]) is None
