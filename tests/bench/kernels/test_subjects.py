"""The subjects of the kernel suite."""

from bench.kernels import subjects
from temporal_zoo.ops import ops


def test_every_op_of_ours_is_measured():
    assert {subject.op for subject in subjects.SUBJECTS.values()} == set(ops())
