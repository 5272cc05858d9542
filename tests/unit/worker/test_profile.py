"""What was measured counts for the same options on the same device."""

from typing import get_args

import msgspec
import pytest

from sdq import config
from sdq.testing.worker import fake_profile
from sdq.worker.devices import DTYPES, Device
from sdq.worker.flight import Capacity
from sdq.worker.profile import DrawOptions, Dtype, Offload, Profile, options_of, plan_of

DEVICE = Device(name="cpu", dtype="float32", label="fake")


def test_what_was_measured_is_drawn_with() -> None:
    profile = fake_profile(dtype="bfloat16", at_once=4, area_pixels=4 * 128 * 128)
    plan = plan_of(profile, DrawOptions(), DEVICE)
    assert plan.is_measured
    assert plan.device == Device(name="cpu", dtype="bfloat16", label="fake")
    assert plan.capacity == Capacity(4, 4 * 128 * 128)
    assert plan.offload == "none"
    assert plan.needs_bytes == profile.peak_bytes


def test_weights_are_needed_where_nobody_knows_more() -> None:
    assert plan_of(fake_profile(peak_bytes=0), DrawOptions(), DEVICE).needs_bytes == 1_000_000


@pytest.mark.parametrize(
    ("options", "device"),
    [
        (DrawOptions(device="cpu"), DEVICE),
        (DrawOptions(dtype="float16"), DEVICE),
        (DrawOptions(compile=True), DEVICE),
        (DrawOptions(offload="model"), DEVICE),
        (DrawOptions(), msgspec.structs.replace(DEVICE, name="cuda")),
        (DrawOptions(), msgspec.structs.replace(DEVICE, label="another card")),
    ],
)
def test_anything_else_is_drawn_as_such_devices_do(options: DrawOptions, device: Device) -> None:
    plan = plan_of(fake_profile(dtype="bfloat16"), options, device)
    assert not plan.is_measured
    assert plan.device == device
    assert plan.capacity is None
    assert (plan.compile, plan.offload) == (options.compile, options.offload)


def test_a_profile_comes_back_from_json() -> None:
    profile = fake_profile()
    assert msgspec.json.decode(msgspec.json.encode(profile), type=Profile) == profile


def test_a_share_of_a_turn() -> None:
    profile = fake_profile(turn_seconds={1: 0.5, 4: 1.0})
    assert [profile.step_seconds(count) for count in (1, 2, 4)] == [0.5, None, 0.25]


def test_the_settings_offer_what_there_is() -> None:
    assert options_of(config.WorkerSettings()) == DrawOptions()
    assert config.CHOICES["worker.dtype"] == get_args(Dtype) == ("auto", *DTYPES)
    assert config.CHOICES["worker.offload"] == get_args(Offload)
    chosen = config.WorkerSettings(device="cuda:1", dtype="float16", compile=True, offload="model")
    assert options_of(chosen) == DrawOptions("cuda:1", "float16", True, "model")
