"""Server and worker as processes of their own, as two machines would run them."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROMPT = "a red circle on a blue background"


def shell(command: str, env: dict[str, str], seconds: float = 120):
    """A line as typed, with this environment's sdq."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    return subprocess.run(
        command,
        shell=True,
        env=env | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def test_two_machines_as_the_readme_types_it(sdq, tmp_path: Path):
    sdq.serve()
    nobody = sdq("generate", PROMPT, "-o", "a.png", "--no-wait")
    assert nobody.returncode == 6
    assert "no worker online holds 'shapes'" in nobody.stderr

    worker_home = sdq.env | {"SDQ_HOME": str(tmp_path / "worker-home")}
    del worker_home["SDQ_WORKER_MEASURE_SECONDS"]
    installed = shell("sdq worker install", worker_home)
    assert installed.returncode == 0, installed.stderr
    assert "shapes: measuring" in installed.stderr
    config = tmp_path / "worker-home" / "worker" / "worker.json"
    assert config.stat().st_mode & 0o777 == 0o600
    again = shell("sdq worker install", worker_home)
    assert "already" in again.stdout + again.stderr
    listed = shell("sdq worker list", worker_home)
    assert "shapes" in listed.stdout

    sdq.env["SDQ_HOME"], home = worker_home["SDQ_HOME"], sdq.env["SDQ_HOME"]
    worker = sdq.start("worker", "run")
    sdq.env["SDQ_HOME"] = home
    made = sdq("generate", PROMPT, "-o", "a.png")
    assert (made.returncode, made.stdout) == (0, "a.png\n"), made.stderr + worker.said
    assert worker.end() == 0, worker.said
    offline = sdq("generate", PROMPT, "-o", "b.png")
    assert offline.returncode == 0
    assert "from the library" in offline.stderr


def test_a_worker_without_its_installation_says_what_to_do(sdq):
    done = sdq("worker", "run")
    assert done.returncode == 2
    assert "sdq worker install" in done.stderr


def broken_catalog(folder: Path, **change: object) -> None:
    """A catalog whose only model has one small file, changed as the test wants."""
    content = folder / "weights.safetensors"
    content.write_bytes(b"x" * 1000)
    file = {
        "path": "weights.safetensors",
        "size_bytes": 1000,
        "sha256": hashlib.sha256(b"x" * 1000).hexdigest(),
        "links": [content.as_uri()],
    } | change
    fields = "\n".join(f"{name} = {json.dumps(value)}" for name, value in file.items())
    (folder / "home" / "server").mkdir(parents=True)
    (folder / "home" / "server" / "catalog.toml").write_text(
        f"""
        default = "mine"
        [models.mine]
        title = "Mine"
        kind = "single_file"
        license = "MIT"
        canary_prompt = "a cat"
        [models.mine.defaults]
        width = 128
        height = 128
        num_inference_steps = 2
        guidance_scale = 1.0
        scheduler = "ddim"
        [models.mine.limits]
        min_side = 64
        max_side = 256
        max_pixels = 65536
        max_steps = 10
        schedulers = ["ddim"]
        [[models.mine.files]]
        {fields}
        """
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"links": ["file:///nowhere/at/all.safetensors"]}, "/nowhere/at/all.safetensors"),
        ({"sha256": "0" * 64}, "0000"),
        ({"links": ["http://127.0.0.1:1/weights.safetensors"]}, "127.0.0.1:1"),
    ],
)
def test_a_dead_link_or_a_wrong_hash_leaves_no_worker(sdq, change, words: str):
    broken_catalog(sdq.folder, **change)
    sdq.serve()
    done = sdq("worker", "install")
    assert done.returncode == 1, done.stderr
    assert words in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr
    refused = sdq("worker", "run")
    assert refused.returncode == 2
    assert "sdq worker install" in refused.stderr


def test_a_broken_catalog_is_named_when_the_server_starts(sdq):
    broken_catalog(sdq.folder, sha256="not a hash")
    done = sdq("server", "--port", "0")
    assert done.returncode == 2, done.stderr
    assert "catalog.toml" in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr


def test_the_server_gone_in_the_middle_is_said(sdq):
    server = sdq.serve()
    sdq.env["SDQ_CLIENT_RECONNECT_SECONDS"] = "1"
    waiting = sdq.start("generate", PROMPT, "-o", "a.png")
    waiting.until(lambda: "no worker online" in waiting.said)
    server.end()
    assert waiting.process.wait(60) == 3
    assert "Traceback" not in waiting.said
    assert "reconnecting" in waiting.said
    assert "error:" in waiting.said
    assert "sdq attach" in waiting.said
