"""Training: exact resume, whole checkpoints, and a model made from nothing in seconds."""

import functools
import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from training import loop, vae
from training.dataset import training
from training.latents import Latents, cached
from training.make_model import make
from training.tokenizer import build
from training.train import DenoiserSettings, DenoiserTrainer

SMALL_VAE = vae.VaeSettings(width=8, blocks=(1, 1, 1, 1), channels=4, crop=32, batch=2)
SMALL = DenoiserSettings(
    widths=(8, 16, 16), text_width=16, text_layers=1, heads=2, groups=4, batch=4
)


def quiet(_line: str) -> None:
    """No progress lines."""


def denoiser() -> DenoiserTrainer:
    """A very small UNet with ten pictures: six steps of four go through more than two rounds."""
    latents = torch.randn(10, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    words = build(["red", "blue", "circle"], 8)
    return DenoiserTrainer(Latents(latents, ["red circle", "blue circle"] * 5, 1.0), words, SMALL)


def small_vae(*, decoder_only: bool = False) -> vae.VaeTrainer:
    """A very small VAE."""
    return vae.VaeTrainer(vae.build(SMALL_VAE), SMALL_VAE, decoder_only=decoder_only)


def same(first: Any, second: Any) -> bool:
    """Whether two states are equal, all tensors bit for bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


TRAINERS = {
    "denoiser": denoiser,
    "vae": small_vae,
    "decoder": functools.partial(small_vae, decoder_only=True),
}


@pytest.mark.parametrize("name", TRAINERS)
def test_an_interrupted_run_ends_with_the_same_weights(name: str, tmp_path: Path) -> None:
    new: Callable[[], loop.Trainer] = TRAINERS[name]
    budget = loop.Budget(steps=6)
    straight, broken = tmp_path / "straight.pt", tmp_path / "broken.pt"
    loop.run(new(), budget, straight, quiet)
    loop.run(new(), budget, broken, quiet, stop_at=3)
    halfway = loop.load(broken)
    loop.run(new(), budget, broken, quiet)
    first, second = loop.load(straight), loop.load(broken)
    assert first is not None
    assert second is not None
    assert halfway is not None
    assert (halfway["step"], second["step"]) == (3, 6)
    assert not same(halfway["trainer"], second["trainer"])
    assert same(first["trainer"], second["trainer"])


def test_a_resume_that_forgets_the_generator_is_noticed(tmp_path: Path) -> None:
    """The comparison above would see a state that is not put back."""
    budget = loop.Budget(steps=6)
    straight, broken = tmp_path / "straight.pt", tmp_path / "broken.pt"
    loop.run(denoiser(), budget, straight, quiet)
    loop.run(denoiser(), budget, broken, quiet, stop_at=3)
    saved = loop.load(broken)
    assert saved is not None
    saved["trainer"]["generator"] = torch.Generator().manual_seed(5).get_state()
    loop.save(broken, saved)
    loop.run(denoiser(), budget, broken, quiet)
    first, second = loop.load(straight), loop.load(broken)
    assert first is not None
    assert second is not None
    assert not same(first["trainer"]["unet"], second["trainer"]["unet"])


def test_a_failed_write_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "stage.pt"
    loop.save(path, {"step": 1})

    def full_disk(_state: object, file: Any) -> None:
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        loop.save(path, {"step": 2})
    assert loop.load(path) == {"step": 1}


def test_a_finished_stage_makes_no_step(tmp_path: Path) -> None:
    lines: list[str] = []
    path = tmp_path / "vae.pt"
    loop.run(small_vae(), loop.Budget(steps=2), path, quiet)
    loop.run(small_vae(), loop.Budget(steps=2), path, lines.append)
    assert lines[0] == "vae: goes on at step 2"
    assert "at step 2 after" in lines[-1]


def test_the_budget_in_seconds_goes_on_where_it_stopped() -> None:
    budget = loop.Budget(seconds=10)
    assert budget.part(step=999, elapsed=5) == 0.5
    assert loop.Budget().part(0, 0) == 1.0


def test_folding_brings_latents_to_one_scale() -> None:
    model = vae.build(SMALL_VAE)
    vae.fold(model)
    data = cached_latents(model)
    assert data.mean((0, 2, 3)).abs().max() < 0.2
    assert 0.5 < data.std() < 2


def cached_latents(model: Any) -> torch.Tensor:
    """Latents of forty pictures, kept nowhere."""
    rng = random.Random(12)
    with torch.no_grad():
        latents: torch.Tensor = model.encode(
            vae.to_tensor([training(rng).picture for _ in range(40)])
        ).latents
    return latents / latents.square().mean().sqrt()


def test_latents_are_computed_once(tmp_path: Path) -> None:
    path = tmp_path / "latents.pt"
    first = cached(vae.build(SMALL_VAE), 12, path, quiet)
    # A VAE that could not be used shows that the file was.
    second = cached(None, 12, path, quiet)
    assert first.captions == second.captions
    assert torch.equal(first.latents, second.latents)
    assert abs(float(first.latents.square().mean()) - 1) < 1e-3


def digests(folder: Path) -> dict[str, str]:
    """Every file below the folder with its hash."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_model_from_nothing_in_seconds_and_again_from_its_work_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vae, "FOLD_PICTURES", 16)  # all of them take longer than the training
    out, work, lines = tmp_path / "model", tmp_path / "work", []
    make(out, 0.02, work, lines.append)
    first = digests(out)
    assert {"model_index.json", "unet/config.json", "vae/config.json"} <= set(first)

    make(out, 0.02, work, lines.append)
    assert digests(out) == first

    with pytest.raises(SystemExit, match="another length"):
        make(out, 0.3, work, quiet)

    from evaluate import Settings, load_pipeline

    pipeline = load_pipeline(Settings(out, 2, 4.0, "ddim"))
    picture = pipeline("a red circle", num_inference_steps=2, guidance_scale=4.0).images[0]
    assert picture.size == (128, 128)
