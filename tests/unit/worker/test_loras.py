"""LoRAs in a pipeline: the pictures are diffusers' own, and those without one know of nothing."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file

from sdq.errors import GenerationFailed
from sdq.spec import ImageSpec, Lora
from sdq.testing.pipeline import held
from sdq.testing.tiny_loras import write_lora
from sdq.testing.tiny_models import Layout, tiny_pipeline
from sdq.worker.devices import Device
from sdq.worker.drawing import DiffusersPipeline
from sdq.worker.engine import Engine
from sdq.worker.flight import Flight
from sdq.worker.lora_store import lora_path
from sdq.worker.loras import MAX_LOADED
from sdq.worker.stepping import SteppingPipeline

# diffusers' schedulers hand torch's arrays to a numpy that has news for them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated:FutureWarning"),
    # What peft says where nobody silences it, as in what is compared with.
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning"),
]

CPU = Device(name="cpu", dtype="float32", label="cpu")
WAIT_SECONDS = 60.0
MOST_DIFFERENCE = 2
"""Of 255, as in test_same_picture."""

STRENGTH = 0.1


class Shelf:
    """Files of LoRAs for a layout, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[tuple[Any, ...], Lora] = {}

    def find(self, lora: Lora) -> Path:
        return lora_path(self.folder, lora)

    def made(self, layout: Layout = "sd1", **options: Any) -> Lora:
        name = (layout, *sorted(options.items()))
        if name not in self._made:
            self._made[name] = write_lora(
                tiny_pipeline(layout), self.folder, **{"strength": STRENGTH, **options}
            )
        return self._made[name]

    def put(self, tensors: dict[str, torch.Tensor], name: str = "handmade") -> Lora:
        path = self.folder / "new"
        save_file(tensors, path)
        lora = Lora(name, hashlib.sha256(path.read_bytes()).hexdigest(), 1.0)
        path.rename(self.find(lora))
        return lora

    def stepping(self, loaded: Any) -> SteppingPipeline:
        return SteppingPipeline(loaded, CPU, find=self.find)

    def by_call(self, layout: Layout, spec: ImageSpec) -> Any:
        """What diffusers itself makes of it, without us."""
        loaded = tiny_pipeline(layout)
        for lora in spec.loras:
            loaded.load_lora_weights(str(self.find(lora)), adapter_name=lora.name)
        if spec.loras:
            names, weights = zip(*((lora.name, lora.weight) for lora in spec.loras), strict=True)
            loaded.set_adapters(list(names), list(weights))
        bare = msgspec.structs.replace(spec, loras=())
        return DiffusersPipeline(loaded, CPU).draw(bare, lambda step, steps: None)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("loras"))


def using(spec: ImageSpec, *loras: Lora, **changes: Any) -> ImageSpec:
    return msgspec.structs.replace(spec, loras=loras, **changes)


def alone(pipeline: SteppingPipeline, spec: ImageSpec) -> Any:
    flight = pipeline.begin(spec, lambda step, steps: None)
    while not flight.is_finished:
        assert pipeline.step([flight]) == [None]
    (made,) = pipeline.decode([flight])
    assert not isinstance(made, Exception)
    return made


def difference(one: Any, other: Any) -> int:
    return int(numpy.abs(numpy.asarray(one, int) - numpy.asarray(other, int)).max())


def is_same(one: Any, other: Any) -> bool:
    return bool(one.tobytes() == other.tobytes())


def together(pipeline: SteppingPipeline, specs: Sequence[ImageSpec]) -> list[Any]:
    """The first one from the beginning, the others from its second step on."""
    engine = Engine([held(pipeline)])
    futures: list[Future[Any]] = []

    def submit(spec: ImageSpec, on_step: Callable[[int, int], None]) -> None:
        futures.append(engine.submit(spec, on_step=on_step, is_cancelled=lambda: False))

    def on_first_step(step: int, steps: int) -> None:
        if step == 2:
            for spec in specs[1:]:
                submit(spec, lambda step, steps: None)

    engine.start()
    engine.wait_ready(WAIT_SECONDS)
    submit(specs[0], on_first_step)
    try:
        futures[0].result(WAIT_SECONDS)
        return [future.result(WAIT_SECONDS).image for future in futures]
    finally:
        assert engine.close()


@pytest.mark.parametrize("layout", ["sd1", "sdxl"])
def test_the_picture_is_diffusers_own(spec: ImageSpec, shelf: Shelf, layout: Layout) -> None:
    """Alone; beside pictures without, with the same set and with others; and after them."""
    first = shelf.made(layout, seed=1, weight=0.7)
    second = shelf.made(layout, seed=2, weight=-1.3, in_text=False, alpha=2)
    plain = msgspec.structs.replace(spec, num_inference_steps=6)
    specs = [
        using(plain, first),
        using(spec, first, prompt="two dogs", seed=9),
        using(spec, second),
        using(spec, first, second),
        using(spec, msgspec.structs.replace(first, weight=0.3)),
        using(spec),
    ]
    pipeline = shelf.stepping(tiny_pipeline(layout))
    untouched = alone(pipeline, spec)
    before = alone(pipeline, plain)
    right = [shelf.by_call(layout, one) for one in specs]
    assert difference(right[0], before) > 10 * MOST_DIFFERENCE  # else nothing is compared
    assert difference(alone(pipeline, specs[0]), right[0]) <= MOST_DIFFERENCE
    assert is_same(alone(pipeline, spec), untouched)
    made = together(pipeline, specs)
    for image, other in zip(made, right, strict=True):
        assert difference(image, other) <= MOST_DIFFERENCE
    assert is_same(made[-1], untouched)
    assert is_same(alone(pipeline, plain), before)


def test_equal_sets_share_their_turns_and_no_others(spec: ImageSpec, shelf: Shelf) -> None:
    one, other = shelf.made(seed=1), shelf.made(seed=2)
    pipeline = shelf.stepping(tiny_pipeline("sd1"))
    specs = [
        using(spec, one),
        using(spec, one, prompt="a dog", seed=3),
        using(spec),
        using(spec, other),
        using(spec, msgspec.structs.replace(one, weight=0.5)),
    ]
    groups = [pipeline.begin(each, lambda step, steps: None).group for each in specs]
    assert groups[0] == groups[1]
    assert len(set(groups)) == 4
    drawer = DiffusersPipeline(tiny_pipeline("sd1"), CPU, find=shelf.find)
    assert len({drawer.group_of(each) for each in specs}) == 4


def test_a_model_that_draws_in_one_go(spec: ImageSpec, shelf: Shelf) -> None:
    lora = shelf.made(weight=0.7)
    drawer = DiffusersPipeline(tiny_pipeline("sd1"), CPU, find=shelf.find)
    plain = drawer.draw(spec, lambda step, steps: None)
    made = drawer.draw(using(spec, lora), lambda step, steps: None)
    assert difference(made, shelf.by_call("sd1", using(spec, lora))) <= MOST_DIFFERENCE
    assert is_same(drawer.draw(spec, lambda step, steps: None), plain)


def test_nothing_changes_in_a_model_that_never_met_one(spec: ImageSpec, shelf: Shelf) -> None:
    loaded = tiny_pipeline("sd1")
    before = [type(module) for module in loaded.unet.modules()]
    alone(shelf.stepping(loaded), spec)
    assert [type(module) for module in loaded.unet.modules()] == before


def kohya(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names of the program that most people train with."""
    named: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        part, _, layer = name.partition(".")
        layer, half, _ = layer.rsplit(".", 2)
        prefix = "lora_unet_" if part == "unet" else "lora_te_text_model_"
        ours = prefix + layer.replace(".", "_")
        named[f"{ours}.{'lora_down' if half == 'lora_A' else 'lora_up'}.weight"] = tensor
        named[f"{ours}.alpha"] = torch.tensor(6.0)
    return named


def test_files_of_another_program(spec: ImageSpec, shelf: Shelf) -> None:
    lora = shelf.made()
    theirs = shelf.put(kohya(load_file(shelf.find(lora))))
    pipeline = shelf.stepping(tiny_pipeline("sd1"))
    made = alone(pipeline, using(spec, theirs))
    assert difference(made, alone(pipeline, using(spec, lora))) <= MOST_DIFFERENCE


def test_layers_that_the_model_has_not_are_left_out_with_a_word(
    spec: ImageSpec, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = load_file(shelf.find(shelf.made()))
    more = {f"unet.other.to_q.lora_{half}.weight": torch.zeros(2, 2) for half in "AB"}
    lora = shelf.put({**tensors, **more})
    made = alone(shelf.stepping(tiny_pipeline("sd1")), using(spec, lora))
    assert difference(made, shelf.by_call("sd1", using(spec, lora))) <= MOST_DIFFERENCE
    assert "LoRA handmade: 1 of its 45 layers are not in the model" in caplog.text


def unfit_tensors(shelf: Shelf, kind: str) -> dict[str, torch.Tensor]:
    tensors = load_file(shelf.find(shelf.made()))
    if kind == "text":
        return {
            name: tensor if name.startswith("unet") else torch.zeros(5, 5)
            for name, tensor in tensors.items()
        }
    if kind == "halves":
        return {name: tensor for name, tensor in tensors.items() if "lora_A" in name}
    if kind == "weights":
        return {"unet.conv_in.weight": torch.zeros(2, 2)}
    return {f"unet.other.to_q.lora_{half}.weight": torch.zeros(2, 2) for half in "AB"}


@pytest.mark.parametrize(
    ("kind", "reason", "has_met_one"),
    [
        ("sdxl", "another kind of model", False),
        ("text", "another kind of model", False),
        ("text", "another kind of model", True),
        ("elsewhere", "none of its layers", True),
        ("halves", "no LoRA of a kind that is known", True),
        ("weights", "no LoRA of a kind that is known", False),
        ("cut", "no LoRA of a kind that is known", False),
    ],
)
def test_what_does_not_fit_is_told_and_harms_nobody(
    spec: ImageSpec, shelf: Shelf, kind: str, reason: str, has_met_one: bool
) -> None:
    good = shelf.made(seed=5)
    if kind == "sdxl":
        lora = shelf.made("sdxl")
    elif kind == "cut":
        lora = shelf.put({})
        shelf.find(lora).write_bytes(shelf.find(shelf.made()).read_bytes()[:-100])
    else:
        lora = shelf.put(unfit_tensors(shelf, kind))
    loaded = tiny_pipeline("sd1")
    kinds = [type(module) for module in loaded.unet.modules()]
    pipeline = shelf.stepping(loaded)
    plain = alone(pipeline, spec)
    coloured = alone(pipeline, using(spec, good)) if has_met_one else None
    for _ in range(2):
        with pytest.raises(GenerationFailed, match=f"LoRA .* cannot be used .*{reason}"):
            pipeline.begin(using(spec, lora), lambda step, steps: None)
    assert is_same(alone(pipeline, spec), plain)
    if coloured is not None:
        assert is_same(alone(pipeline, using(spec, good)), coloured)
    else:
        assert [type(module) for module in loaded.unet.modules()] == kinds


def test_one_that_does_not_fit_ends_no_other_picture(spec: ImageSpec, shelf: Shelf) -> None:
    pipeline = shelf.stepping(tiny_pipeline("sd1"))
    plain = alone(pipeline, spec)
    engine = Engine([held(pipeline)])
    engine.start()
    try:
        futures = [
            engine.submit(each, on_step=lambda step, steps: None, is_cancelled=lambda: False)
            for each in (spec, using(spec, shelf.made("sdxl")), spec)
        ]
        with pytest.raises(GenerationFailed):
            futures[1].result(WAIT_SECONDS)
        for number in (0, 2):
            assert difference(futures[number].result(WAIT_SECONDS).image, plain) <= 1
    finally:
        assert engine.close()


def test_a_pipeline_that_takes_none(spec: ImageSpec, shelf: Shelf) -> None:
    class Other:
        scheduler = tiny_pipeline("sd1").scheduler

    drawer = DiffusersPipeline(Other(), CPU, find=shelf.find)
    with pytest.raises(GenerationFailed, match="this model takes no LoRA"):
        drawer.draw(using(spec, Lora("x", "a" * 64, 1.0)), lambda step, steps: None)


def test_few_stay_and_those_of_pictures_under_way_do(spec: ImageSpec, shelf: Shelf) -> None:
    loras = [shelf.made(seed=seed, in_text=False) for seed in range(MAX_LOADED + 2)]
    pipeline = shelf.stepping(tiny_pipeline("sd1"))
    under_way = pipeline.begin(using(spec, loras[0]), lambda step, steps: None)
    for lora in loras[1:]:
        alone(pipeline, using(spec, lora))
    found = pipeline._loras.loaded
    assert set(found) == {lora.sha256 for lora in [loras[0], *loras[3:]]}
    while not under_way.is_finished:
        assert pipeline.step([under_way]) == [None]
    right = shelf.by_call("sd1", using(spec, loras[0]))
    assert difference(pipeline.decode([under_way])[0], right) <= MOST_DIFFERENCE


def test_a_picture_begins_beside_others_while_all_their_loras_fit(
    spec: ImageSpec, shelf: Shelf
) -> None:
    pipeline = shelf.stepping(tiny_pipeline("sd1"))
    names = [Lora(f"{n}", f"{n:064x}", 1.0) for n in range(MAX_LOADED + 2)]
    others = [Flight(using(spec, lora), None) for lora in names[:MAX_LOADED]]
    assert pipeline.joins(spec, others)
    assert pipeline.joins(using(spec, names[0]), others)
    assert not pipeline.joins(using(spec, names[-1]), others)
    assert pipeline.joins(using(spec, names[-1]), others[1:])
    assert pipeline.joins(using(spec, *names), others)  # it has them all itself
    assert pipeline.joins(using(spec, *names), [])


def test_too_little_memory_is_told_as_elsewhere(
    spec: ImageSpec, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = shelf.stepping(tiny_pipeline("sd1"))
    plain = alone(pipeline, spec)
    lora = using(spec, shelf.made())

    def full(*arguments: Any, **named: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.pipeline, "load_lora_weights", full)
        with pytest.raises(MemoryError):
            pipeline.begin(lora, lambda step, steps: None)
    assert is_same(alone(pipeline, spec), plain)
    assert difference(alone(pipeline, lora), shelf.by_call("sd1", lora)) <= MOST_DIFFERENCE


def test_idle_ones_make_room_for_one_that_is_needed(
    spec: ImageSpec, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = shelf.stepping(tiny_pipeline("sd1"))
    idle, wanted = shelf.made(seed=1), shelf.made(seed=2)
    alone(pipeline, using(spec, idle))
    load = pipeline.pipeline.load_lora_weights

    def full_once(*arguments: Any, **named: Any) -> None:
        monkeypatch.setattr(pipeline.pipeline, "load_lora_weights", load)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(pipeline.pipeline, "load_lora_weights", full_once)
    alone(pipeline, using(spec, wanted))
    assert pipeline._loras.loaded == (wanted.sha256,)


def test_in_the_models_own_numbers(spec: ImageSpec, shelf: Shelf) -> None:
    loaded = tiny_pipeline("sd1").to(torch.bfloat16)
    device = Device(name="cpu", dtype="bfloat16", label="cpu")
    pipeline = SteppingPipeline(loaded, device, find=shelf.find)
    alone(pipeline, using(spec, shelf.made()))
    assert {weights.dtype for weights in loaded.unet.parameters()} == {torch.bfloat16}
    assert not loaded.unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1.to_q.training


def test_what_loads_beside_it_changes_nothing(spec: ImageSpec, shelf: Shelf) -> None:
    """The libraries set torch's default dtype while they load, for all threads."""
    lora = using(spec, shelf.made())
    right = alone(shelf.stepping(tiny_pipeline("sd1")), lora)
    pipeline = shelf.stepping(tiny_pipeline("sd1"))
    torch.set_default_dtype(torch.float16)
    try:
        assert is_same(alone(pipeline, lora), right)
    finally:
        torch.set_default_dtype(torch.float32)


def test_part_by_part(spec: ImageSpec, shelf: Shelf) -> None:
    loaded = tiny_pipeline("sd1")
    loaded.enable_model_cpu_offload(device="cpu")
    pipeline = shelf.stepping(loaded)
    plain = alone(pipeline, spec)
    for seed in (1, 2):
        lora = using(spec, shelf.made(seed=seed))
        assert difference(alone(pipeline, lora), shelf.by_call("sd1", lora)) <= MOST_DIFFERENCE
    assert is_same(alone(pipeline, spec), plain)
    parts = (loaded.unet, loaded.text_encoder, loaded.vae)
    assert all(hasattr(part, "_hf_hook") for part in parts)


def test_layer_by_layer(spec: ImageSpec, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import cpu_offload

    loaded = tiny_pipeline("sd1")

    def offloaded(**named: Any) -> None:
        """diffusers' own insists on a device with a number."""
        for part in (loaded.unet, loaded.text_encoder, loaded.vae):
            cpu_offload(part, torch.device("cpu"))

    monkeypatch.setattr(loaded, "enable_sequential_cpu_offload", offloaded)
    offloaded()
    pipeline = shelf.stepping(loaded)
    plain = alone(pipeline, spec)
    lora = using(spec, shelf.made())
    assert difference(alone(pipeline, lora), shelf.by_call("sd1", lora)) <= MOST_DIFFERENCE
    assert is_same(alone(pipeline, spec), plain)
    assert {weights.device.type for weights in loaded.unet.parameters()} == {"meta"}


def test_a_compiled_model_goes_on_without(
    spec: ImageSpec, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    from sdq.worker import compiling

    caplog.set_level(logging.INFO)
    loaded = tiny_pipeline("sd1")
    compiled = compiling.prepare(loaded)
    compiled._learned.add(torch.Size([2, 4, 6, 8]))  # as if: compiling takes a minute
    compiled._compiled = compiled._plain
    pipeline = shelf.stepping(loaded)
    plain = alone(pipeline, spec)
    assert compiled.calls == spec.num_inference_steps
    for seed in (1, 2):
        lora = using(spec, shelf.made(seed=seed))
        assert difference(alone(pipeline, lora), shelf.by_call("sd1", lora)) <= MOST_DIFFERENCE
    assert is_same(alone(pipeline, spec), plain)
    assert compiled.calls == spec.num_inference_steps
    assert caplog.text.count("without compiling from now on: a LoRA was asked for") == 1
