"""Devices of plans, by name and by bytes."""

import pytest

from bench.plan.devices import GIB, GPUS, device
from temporal_zoo.config import ConfigError


def test_devices_by_name_and_by_bytes():
    assert device("A100-40GB").memory_bytes == 40 * GIB
    assert device("24GiB").memory_bytes == 24 * GIB
    assert device("24GiB").type == "cuda"
    assert (device("cpu:16gib").type, device("cpu:16gib").usable_bytes) == ("cpu", 16 * GIB)
    assert all(device(name).usable_bytes < device(name).memory_bytes for name in GPUS)


@pytest.mark.parametrize("text", ["a100", "40", "24 parsecs", "cpu:", "tpu:16GiB", ""])
def test_an_unknown_device_raises_with_the_known_devices(text):
    with pytest.raises(ConfigError, match="a100-40gb"):
        device(text)
