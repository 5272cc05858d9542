"""What an installation refuses, and what a worker refuses afterwards."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sdq_shapes
from safetensors.torch import load_file, save_file

import sdq
from sdq.config import Home
from sdq.errors import DownloadError, ModelError
from sdq.protocol.messages import WorkerSettings
from sdq.protocol.model import ModelFile, ModelManifest, fingerprint_of
from sdq.worker import models
from sdq.worker.fetch import web
from sdq.worker.install import Installed, install
from sdq.worker.profile import DrawOptions

CPU = DrawOptions(device="cpu")


def changed(manifest: ModelManifest, **changes: Any) -> ModelManifest:
    """The manifest with its first file changed."""
    files = (msgspec.structs.replace(manifest.files[0], **changes), *manifest.files[1:])
    return msgspec.structs.replace(manifest, files=files, fingerprint=fingerprint_of(files))


def run_worker() -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "sdq", "worker", "run"],
        cwd=Path(sdq.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_changed_file_is_found_and_mended(
    install_shapes: Callable[[], Any], home: Home, tmp_path: Path
) -> None:
    installed = install_shapes()
    assert install_shapes().already
    weights = installed.folder / "unet" / "diffusion_pytorch_model.safetensors"
    with weights.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"changed")
    refused = run_worker()
    assert refused.returncode == 1
    assert str(weights) in refused.stderr.replace("\n", "")
    assert "sdq worker install" in refused.stderr
    assert "Traceback" not in refused.stderr

    weights.unlink()
    refused = run_worker()
    assert refused.returncode == 1
    assert "is missing" in refused.stderr

    mended = install_shapes()
    assert not mended.already
    assert mended.worker_id == installed.worker_id
    assert models.check_files(home, models.load_config(home).model) == installed.folder


def test_what_is_measured_of_the_built_in_model(
    install_shapes: Callable[..., Installed], home: Home
) -> None:
    profile = install_shapes(measure_seconds=20.0).profile
    assert profile.options == CPU
    assert profile.device_name == "cpu"
    assert profile.dtype in ("float32", "bfloat16")
    assert profile.offload == "none"
    assert {1, 2} <= set(profile.turn_seconds)
    assert all(seconds > 0 for seconds in profile.turn_seconds.values())
    assert profile.at_once in profile.turn_seconds
    assert profile.area_pixels == profile.at_once * 128 * 128
    item_bytes = {"float32": 4, "bfloat16": 2}[profile.dtype]
    assert 5_000_000 < profile.weights_bytes / item_bytes < 20_000_000
    assert profile.canary_seconds > profile.turn_seconds[1]
    if sys.platform == "linux":
        assert profile.peak_bytes > profile.weights_bytes
    assert models.load_config(home).models[0].profile == profile


def test_weights_that_draw_another_picture_are_refused(
    home: Home, shapes: ModelManifest, redis_url: str, tmp_path: Path
) -> None:
    """One tensor of the UNet is nothing but zeros, and its file's hash is right."""
    path = "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(sdq_shapes.folder() / path)
    tensors["conv_in.weight"].zero_()
    spoilt = tmp_path / "spoilt.safetensors"
    save_file(tensors, spoilt)
    files = tuple(
        ModelFile(path, spoilt.stat().st_size, models.sha256_of(spoilt), (spoilt.as_uri(),))
        if file.path == path
        else file
        for file in shapes.files
    )
    manifest = msgspec.structs.replace(shapes, files=files, fingerprint=fingerprint_of(files))
    with pytest.raises(ModelError, match="another picture than the golden one: they differ by"):
        install(WorkerSettings(1, redis_url, manifest), home, options=CPU, measure_seconds=0)
    assert not models.config_file(home).exists()


def test_nothing_is_installed() -> None:
    refused = run_worker()
    assert refused.returncode == 2
    assert "sdq worker install" in refused.stderr


def test_a_wrong_hash(home: Home, shapes: ModelManifest, redis_url: str) -> None:
    manifest = changed(shapes, sha256="0" * 64)
    with pytest.raises(DownloadError, match=f"expected sha256 {'0' * 64}, found"):
        install(WorkerSettings(1, redis_url, manifest), home, options=CPU)
    assert not models.config_file(home).exists()
    assert run_worker().returncode == 2


def test_a_dead_link(
    home: Home,
    shapes: ModelManifest,
    redis_url: str,
    free_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web, "RETRY_WAITS_SECONDS", (0.0,))
    links = (f"http://127.0.0.1:{free_port}/model_index.json", "file:///gone")
    manifest = changed(shapes, links=links)
    with pytest.raises(DownloadError) as caught:
        install(WorkerSettings(1, redis_url, manifest), home, options=CPU)
    assert "refused" in caught.value.message
    assert "file:///gone: cannot read /gone: No such file" in caught.value.message
    assert not models.config_file(home).exists()


def test_two_installations_wait_for_each_other(
    home: Home, shapes: ModelManifest, redis_url: str, install_shapes: Callable[[], Any]
) -> None:
    """The second one finds all done."""
    settings = home.root / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_bytes(msgspec.json.encode(WorkerSettings(1, redis_url, shapes)))
    code = (
        "import msgspec; from pathlib import Path; from sdq.config import Home\n"
        "from sdq.protocol.messages import WorkerSettings\n"
        "from sdq.worker.install import install\n"
        "from sdq.worker.profile import DrawOptions\n"
        "import sys; home = Home(Path(sys.argv[1])); data = Path(sys.argv[2]).read_bytes()\n"
        "settings = msgspec.json.decode(data, type=WorkerSettings)\n"
        "cpu = DrawOptions(device='cpu')\n"
        "print(install(settings, home, options=cpu, measure_seconds=0).worker_id)"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(home.root), str(settings)],
            cwd=Path(sdq.__file__).parents[1],
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        for _ in range(2)
    ]
    outputs = {run.communicate(timeout=90)[0] for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    assert outputs == {models.load_config(home).worker_id + "\n"}
    assert install_shapes().already
