"""The messages about the server's catalog of models."""

from sdq.protocol.model import LoraManifest, ModelId, ModelManifest, WorkerId
from sdq.protocol.vocabulary import BaseMessage, BaseRequest, RequestId
from sdq.spec import Name

# ---------------------------------------------------------------- client to server


class ShowModel(BaseRequest, frozen=True):
    """All that the catalog says of a model (``None``: the default one). Answer: `ModelShown`."""

    model: Name | None = None


class PutModel(BaseRequest, frozen=True):
    """Adds a model to the catalog. One that is there is only replaced when that is said.

    Jobs that wait for the former files are cancelled. Answer: `CatalogChanged`.
    """

    manifest: ModelManifest
    replaces: bool = False


class RemoveModel(BaseRequest, frozen=True):
    """Takes a model out of the catalog; what comes with sdq comes back in its shipped form.

    Pictures and workers' files stay; jobs that wait for it are cancelled. Answer: `CatalogChanged`.
    """

    model_id: ModelId


class SetDefaultModel(BaseRequest, frozen=True):
    """The model of requests that name none. Answer: `CatalogChanged`."""

    model_id: ModelId


class ListLoras(BaseRequest, frozen=True):
    """The LoRAs of the catalog, those for one model or all. Answer: `Loras`."""

    model: Name | None = None


class PutLora(BaseRequest, frozen=True):
    """Adds a LoRA to the catalog. One that is there is only replaced when that is said.

    Answer: `CatalogChanged`, with the LoRA's id.
    """

    manifest: LoraManifest
    replaces: bool = False


class RemoveLora(BaseRequest, frozen=True):
    """Takes a LoRA out of the catalog; pictures and workers' files stay. Answer: `CatalogChanged`,
    with the LoRA's id."""

    lora_id: ModelId


# ---------------------------------------------------------------- server to client


class ModelShown(BaseMessage, frozen=True):
    """``is_shipped``: it comes with sdq as it is, and is not the operator's own entry."""

    request_id: RequestId
    manifest: ModelManifest
    is_default: bool
    is_shipped: bool
    workers: tuple[WorkerId, ...]  # online, with these very files


class CatalogChanged(BaseMessage, frozen=True):
    """``cancelled``: jobs that waited for files which nobody can be given any more."""

    request_id: RequestId
    model_id: ModelId
    cancelled: int


class Loras(BaseMessage, frozen=True):
    """Sorted by id."""

    request_id: RequestId
    loras: tuple[LoraManifest, ...]
