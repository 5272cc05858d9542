"""What a worker is: which jobs it can draw, and how its pictures say so."""

import msgspec

from sdq.broker import MAX_IMAGE_BYTES, DrawTask
from sdq.errors import GenerationFailed, InvalidSpec
from sdq.metadata import Provenance, png_bytes
from sdq.protocol.model import ModelManifest
from sdq.spec import SIZE_MULTIPLE
from sdq.worker.picture import DrawnImage, GivenBack
from sdq.worker.pipelines import SCHEDULERS


class Identity(msgspec.Struct, frozen=True):
    """What goes into events and files about this worker."""

    worker_id: str
    manifests: tuple[ModelManifest, ...]  # of the models that it draws with
    device: str
    versions: dict[str, str]

    def check(self, task: DrawTask) -> None:
        """Raises `GivenBack` when the job asks for a model, or for files, that are not held here,
        `InvalidSpec` for a picture that the model cannot draw."""
        manifest, spec = self._manifest_of(task), task.spec
        if task.fingerprint != manifest.fingerprint:
            raise GivenBack(
                f"this worker holds {manifest.model_id} with other files than the job asks for",
                hint="run `sdq worker install` on it again",
            )
        limits = manifest.limits
        if (
            spec.width % SIZE_MULTIPLE
            or spec.height % SIZE_MULTIPLE
            or spec.width * spec.height > limits.max_pixels
            or not limits.min_side <= min(spec.width, spec.height)
            or not max(spec.width, spec.height) <= limits.max_side
        ):
            raise InvalidSpec(f"{manifest.model_id} cannot draw {spec.width}x{spec.height}")
        if spec.scheduler not in SCHEDULERS:
            raise InvalidSpec(f"this worker has no scheduler {spec.scheduler[:40]!r}")
        if spec.num_inference_steps > limits.max_steps:
            raise InvalidSpec(f"{manifest.model_id} takes at most {limits.max_steps} steps")

    def png(self, task: DrawTask, drawn: DrawnImage) -> bytes:
        """The picture as a file that says what it is and who drew it; the model is held here.

        Raises `GenerationFailed` when it is larger than `MAX_IMAGE_BYTES`.
        """
        provenance = Provenance(
            spec=task.spec,
            key=task.key,
            fingerprint=task.fingerprint,
            model_hash=model_hash(self._manifest_of(task)),
            device=self.device,
            versions=self.versions,
        )
        data = png_bytes(drawn.image, provenance)
        if len(data) > MAX_IMAGE_BYTES:
            raise GenerationFailed(
                f"the file would have {len(data)} bytes, {MAX_IMAGE_BYTES} are allowed",
                hint="ask for a smaller picture",
            )
        return data

    def _manifest_of(self, task: DrawTask) -> ModelManifest:
        for manifest in self.manifests:
            if manifest.model_id == task.spec.model:
                return manifest
        raise GivenBack(f"this worker does not hold the model {task.spec.model!r}")


def model_hash(manifest: ModelManifest) -> str:
    """First 10 hexadecimal digits of the largest weights file's SHA-256.

    A1111 hashes its one checkpoint; the largest file (the UNet) comes nearest to that.
    """
    files = [file for file in manifest.files if file.path.endswith(".safetensors")]
    largest = max(files or manifest.files, key=lambda file: file.size_bytes or 0)
    return largest.sha256[:10]
