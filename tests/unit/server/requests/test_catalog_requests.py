"""Changing the catalog of a running server."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sdq.errors import Cancelled, InvalidSpec, OutputError, UnknownLora, UnknownModel, UsageError
from sdq.protocol.catalog_messages import (
    CatalogChanged,
    ListLoras,
    Loras,
    ModelShown,
    PutLora,
    PutModel,
    RemoveLora,
    RemoveModel,
    SetDefaultModel,
    ShowModel,
)
from sdq.protocol.messages import Accepted, Failure, Generate
from sdq.protocol.model import LoraManifest, ModelFile, ModelManifest
from sdq.protocol.states import JobState
from sdq.server.catalog import Catalog
from sdq.server.queue.job import Added, NewJob
from sdq.server.requests.catalog_requests import CatalogRequests
from sdq.spec import LoraChoice, SpecDraft
from sdq.testing.rig import ListeningPeer, Rig, open_rig


@pytest.fixture
async def rig(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        yield rig


@pytest.fixture
def requests(rig: Rig) -> CatalogRequests:
    return CatalogRequests(rig.catalog, rig.roster, rig.cancelling)


@pytest.fixture
def mine(rig: Rig) -> ModelManifest:
    return msgspec.structs.replace(rig.catalog.manifest("shapes"), model_id="mine", title="Mine")


def other_files(manifest: ModelManifest) -> ModelManifest:
    file = ModelFile("unet/other.safetensors", 1, "1" * 64, ("https://example.org/x",))
    return msgspec.structs.replace(manifest, files=(file,))


def draft(model: str | None = None) -> SpecDraft:
    return SpecDraft(prompt="a red circle", model=model)


async def test_a_new_model_can_be_drawn_with_at_once_and_after_a_restart(
    rig: Rig, requests: CatalogRequests, mine: ModelManifest, tmp_path: Path
) -> None:
    assert await requests.answer(PutModel(1, mine)) == CatalogChanged(1, "mine", 0)
    assert rig.catalog.resolve(draft("mine")).model == "mine"
    assert Catalog.load(tmp_path / "catalog.toml").manifest("mine") == mine


async def test_a_model_is_shown_with_who_holds_it(rig: Rig, requests: CatalogRequests) -> None:
    rig.bring_worker("gpu-1")
    shown = await requests.answer(ShowModel(1))
    assert isinstance(shown, ModelShown)
    assert (shown.manifest.model_id, shown.workers) == ("shapes", ("gpu-1",))
    assert (shown.is_default, shown.is_shipped) == (True, True)


async def test_a_model_without_sizes_is_not_published(
    rig: Rig, requests: CatalogRequests, mine: ModelManifest
) -> None:
    first = msgspec.structs.replace(mine.files[0], size_bytes=None)
    unsized = msgspec.structs.replace(mine, files=(first, *mine.files[1:]))
    with pytest.raises(UsageError, match=rf"{first.path} has no size"):
        await requests.answer(PutModel(1, unsized))
    assert "mine" not in rig.catalog.fingerprints()


async def test_a_model_is_not_replaced_by_accident(
    requests: CatalogRequests, mine: ModelManifest
) -> None:
    await requests.answer(PutModel(1, mine))
    with pytest.raises(UsageError, match="'mine' already") as refused:
        await requests.answer(PutModel(1, mine))
    assert "--replace" in refused.value.hint


async def test_a_changed_model_cancels_who_waits_for_the_former_files(
    rig: Rig, requests: CatalogRequests, mine: ModelManifest
) -> None:
    await requests.answer(PutModel(1, mine))
    peer = ListeningPeer()
    await rig.generate(peer, Generate(7, draft("mine"), count=3))
    await rig.generate(peer, Generate(8, draft("shapes")))
    changed = await requests.answer(PutModel(2, other_files(mine), replaces=True))
    assert changed == CatalogChanged(2, "mine", 3)
    failures = peer.all(Failure)
    assert [failure.request_id for failure in failures] == [7, 7, 7]
    assert "changed the model 'mine'" in failures[0].message
    kept = peer.all(Accepted)[-1].pictures[0].job_id
    assert await rig.state_of(kept) is JobState.QUEUED


async def test_the_same_draft_is_another_picture_of_the_changed_model(
    rig: Rig, requests: CatalogRequests, mine: ModelManifest
) -> None:
    await requests.answer(PutModel(1, mine))
    peer = ListeningPeer()
    for number in (1, 2):
        await rig.generate(peer, Generate(number, draft("mine")))
        await requests.answer(PutModel(5, other_files(mine), replaces=True))
    keys = {picture.key for accepted in peer.all(Accepted) for picture in accepted.pictures}
    assert len(keys) == 2


async def test_the_default_is_changed_and_removed_with_its_model(
    rig: Rig, requests: CatalogRequests, mine: ModelManifest
) -> None:
    await requests.answer(PutModel(1, mine))
    await requests.answer(SetDefaultModel(2, "mine"))
    assert rig.catalog.resolve(draft()).model == "mine"
    await requests.answer(RemoveModel(3, "mine"))
    assert rig.catalog.resolve(draft()).model == "shapes"
    with pytest.raises(UnknownModel):
        await requests.answer(ShowModel(4, "mine"))


async def test_a_shipped_model_comes_back_when_its_replacement_is_removed(
    rig: Rig, requests: CatalogRequests
) -> None:
    shipped = rig.catalog.manifest("shapes")
    await requests.answer(PutModel(1, other_files(shipped), replaces=True))
    assert rig.catalog.manifest("shapes") != shipped
    await requests.answer(RemoveModel(2, "shapes"))
    assert rig.catalog.manifest("shapes") == shipped
    with pytest.raises(UnknownModel, match="comes with sdq"):
        await requests.answer(RemoveModel(3, "shapes"))


@pytest.mark.parametrize("message", [RemoveModel(1, "nothing"), SetDefaultModel(1, "nothing")])
async def test_what_is_not_there(
    requests: CatalogRequests, message: RemoveModel | SetDefaultModel, tmp_path: Path
) -> None:
    with pytest.raises(UnknownModel, match="'nothing'"):
        await requests.answer(message)
    assert not (tmp_path / "catalog.toml").exists()


async def test_an_impossible_model_leaves_the_file_as_it_was(
    rig: Rig, requests: CatalogRequests, mine: ModelManifest, tmp_path: Path
) -> None:
    await requests.answer(PutModel(1, mine))
    before = (tmp_path / "catalog.toml").read_text()
    defaults = msgspec.structs.replace(mine.defaults, width=4000)
    wrong = msgspec.structs.replace(mine, model_id="wrong", defaults=defaults)
    with pytest.raises(UsageError, match="width 4000"):
        await requests.answer(PutModel(2, wrong))
    assert (tmp_path / "catalog.toml").read_text() == before
    assert {found.model_id for found in rig.catalog.manifests()} >= {"mine", "shapes"}


async def test_a_file_that_somebody_broke_is_not_overwritten(
    requests: CatalogRequests, mine: ModelManifest, tmp_path: Path
) -> None:
    (tmp_path / "catalog.toml").write_text("default = [")
    with pytest.raises(UsageError, match=r"catalog\.toml"):
        await requests.answer(PutModel(1, mine))
    assert (tmp_path / "catalog.toml").read_text() == "default = ["


async def test_a_disk_that_refuses_is_told(
    rig: Rig, requests: CatalogRequests, mine: ModelManifest, tmp_path: Path
) -> None:
    (tmp_path / "catalog.toml.new").mkdir()  # nothing can be written beside it
    with pytest.raises(OutputError, match="cannot write"):
        await requests.answer(PutModel(1, mine))
    with pytest.raises(UnknownModel):
        rig.catalog.manifest("mine")


@pytest.mark.parametrize("is_waited_for", [True, False])
async def test_a_request_whose_model_changes_while_it_is_committed_does_not_wait_for_ever(
    rig: Rig, requests: CatalogRequests, mine: ModelManifest, is_waited_for: bool
) -> None:
    await requests.answer(PutModel(1, mine))
    original = rig.table.add

    async def add(jobs: list[NewJob], **limits: int) -> list[Added]:
        await requests.answer(PutModel(2, other_files(mine), replaces=True))
        return await original(jobs, **limits)

    rig.table.add = add  # type: ignore[method-assign, assignment]
    ask: Coroutine[Any, Any, object] = (
        rig.generate(ListeningPeer(), Generate(7, draft("mine"), count=3))
        if is_waited_for
        else rig.submit(draft("mine"), count=3)
    )
    with pytest.raises(Cancelled, match="changed the model 'mine'"):
        await ask
    counts = await rig.table.counts()
    assert (counts[JobState.QUEUED], counts[JobState.CANCELLED]) == (0, 3)


async def test_what_was_edited_by_hand_meanwhile_counts(
    rig: Rig, requests: CatalogRequests, mine: ModelManifest, tmp_path: Path
) -> None:
    file = tmp_path / "catalog.toml"
    await requests.answer(PutModel(1, mine))
    peer = ListeningPeer()
    await rig.generate(peer, Generate(7, draft("mine"), count=2))
    digest = mine.files[0].sha256
    file.write_text(file.read_text().replace(digest, "2" * 64))
    yours = msgspec.structs.replace(mine, model_id="yours")
    assert await requests.answer(PutModel(2, yours)) == CatalogChanged(2, "yours", 2)
    assert [failure.request_id for failure in peer.all(Failure)] == [7, 7]
    file.write_text("")
    assert await requests.answer(RemoveModel(3, "mine")) == CatalogChanged(3, "mine", 0)
    with pytest.raises(UnknownModel):
        rig.catalog.manifest("yours")


async def test_a_file_that_cannot_be_added_to_is_told(
    requests: CatalogRequests, mine: ModelManifest, tmp_path: Path
) -> None:
    (tmp_path / "catalog.toml").write_text("models = {}")
    with pytest.raises(UsageError, match="as it is written") as refused:
        await requests.answer(PutModel(1, mine))
    assert "[models.ID]" in refused.value.hint
    assert (tmp_path / "catalog.toml").read_text() == "models = {}"


async def test_a_change_whose_client_leaves_is_in_force_all_the_same(
    rig: Rig, requests: CatalogRequests, mine: ModelManifest, tmp_path: Path
) -> None:
    change = asyncio.create_task(requests.answer(PutModel(1, mine)))
    await asyncio.sleep(0)  # it has begun
    change.cancel()
    await asyncio.wait({change})
    is_written = (tmp_path / "catalog.toml").exists()
    assert is_written == ("mine" in rig.catalog.fingerprints())
    assert is_written


GLOW = LoraManifest(
    lora_id="glow",
    title="Neon",
    license="MIT",
    models=("shapes",),
    file=ModelFile("glow.safetensors", 9, "a" * 64, ("https://example.org/glow.safetensors",)),
)


def with_glow(model: str | None = None) -> SpecDraft:
    return SpecDraft(prompt="a red circle", model=model, loras=(LoraChoice("glow"),))


async def listed(requests: CatalogRequests, model: str | None = None) -> tuple[LoraManifest, ...]:
    """As they are listed, without those that come with sdq."""
    answer = await requests.answer(ListLoras(1, model))
    assert isinstance(answer, Loras)
    return tuple(lora for lora in answer.loras if lora.lora_id == "glow")


async def test_a_new_lora_can_be_drawn_with_at_once_and_after_a_restart(
    rig: Rig, requests: CatalogRequests, tmp_path: Path
) -> None:
    await rig.generate(ListeningPeer(), Generate(7, draft()))
    assert await requests.answer(PutLora(1, GLOW)) == CatalogChanged(1, "glow", 0)
    assert [lora.name for lora in rig.catalog.resolve(with_glow()).loras] == ["glow"]
    assert Catalog.load(tmp_path / "catalog.toml").lora("glow") == GLOW
    assert await listed(requests) == await listed(requests, "shapes") == (GLOW,)
    assert await listed(requests, "sdxl") == ()
    with pytest.raises(UnknownModel, match="did you mean 'shapes'"):
        await listed(requests, "shape")


async def test_a_lora_is_not_replaced_by_accident(rig: Rig, requests: CatalogRequests) -> None:
    await requests.answer(PutLora(1, GLOW))
    other = msgspec.structs.replace(GLOW, weight=0.5)
    with pytest.raises(UsageError, match="'glow' already") as refused:
        await requests.answer(PutLora(2, other))
    assert "--replace" in refused.value.hint
    await requests.answer(PutLora(3, other, replaces=True))
    assert rig.catalog.lora("glow") == other


async def test_the_same_draft_is_another_picture_with_another_file_of_the_lora(
    rig: Rig, requests: CatalogRequests
) -> None:
    await requests.answer(PutLora(1, GLOW))
    peer = ListeningPeer()
    file = msgspec.structs.replace(GLOW.file, sha256="b" * 64)
    for number, weight in ((1, 1.0), (2, 0.5), (3, 1.0)):
        changed = msgspec.structs.replace(
            GLOW, weight=weight, file=file if number > 2 else GLOW.file
        )
        await requests.answer(PutLora(5, changed, replaces=True))
        await rig.generate(peer, Generate(number, with_glow()))
    await rig.generate(peer, Generate(4, draft()))
    keys = [picture.key for accepted in peer.all(Accepted) for picture in accepted.pictures]
    assert len(set(keys)) == 4


async def test_a_lora_is_removed_and_jobs_that_have_it_stay(
    rig: Rig, requests: CatalogRequests
) -> None:
    await requests.answer(PutLora(1, GLOW))
    peer = ListeningPeer()
    await rig.generate(peer, Generate(7, with_glow()))
    assert await requests.answer(RemoveLora(2, "glow")) == CatalogChanged(2, "glow", 0)
    with pytest.raises(UnknownLora):
        await rig.generate(peer, Generate(8, with_glow()))
    assert peer.all(Failure) == []
    with pytest.raises(UnknownLora, match="'glow'"):
        await requests.answer(RemoveLora(3, "glow"))


async def test_a_lora_whose_model_is_gone_stays_and_says_what_it_is_for(
    rig: Rig, requests: CatalogRequests, mine: ModelManifest
) -> None:
    lost = msgspec.structs.replace(GLOW, models=("mine",))
    with pytest.raises(UnknownModel, match="'mine'"):
        await requests.answer(PutLora(1, lost))
    await requests.answer(PutModel(2, mine))
    await requests.answer(PutLora(3, lost))
    await requests.answer(RemoveModel(4, "mine"))
    assert await listed(requests) == await listed(requests, "mine") == (lost,)
    with pytest.raises(InvalidSpec, match="is for mine, not for shapes"):
        rig.catalog.resolve(with_glow())


async def test_an_impossible_lora_leaves_the_file_as_it_was(
    requests: CatalogRequests, tmp_path: Path
) -> None:
    await requests.answer(PutLora(1, GLOW))
    before = (tmp_path / "catalog.toml").read_text()
    file = msgspec.structs.replace(GLOW.file, size_bytes=None)
    for wrong in (
        msgspec.structs.replace(GLOW, file=file),
        msgspec.structs.replace(GLOW, weight=float("nan")),
        msgspec.structs.replace(GLOW, file=msgspec.structs.replace(GLOW.file, path="x.pt")),
    ):
        with pytest.raises(UsageError, match="LoRA 'glow'"):
            await requests.answer(PutLora(2, wrong, replaces=True))
    assert (tmp_path / "catalog.toml").read_text() == before


async def test_loras_in_one_line_cannot_be_added_to_and_that_is_told(
    requests: CatalogRequests, tmp_path: Path
) -> None:
    (tmp_path / "catalog.toml").write_text("loras = {}")
    with pytest.raises(UsageError, match="as it is written") as refused:
        await requests.answer(PutLora(1, GLOW))
    assert "[loras.ID]" in refused.value.hint


async def test_a_shipped_lora_comes_back_when_its_replacement_is_removed(
    rig: Rig, requests: CatalogRequests
) -> None:
    shipped = rig.catalog.loras()[0]
    other = msgspec.structs.replace(shipped, title="Mine")
    await requests.answer(PutLora(1, other, replaces=True))
    assert rig.catalog.lora(shipped.lora_id) == other
    await requests.answer(RemoveLora(2, shipped.lora_id))
    assert rig.catalog.lora(shipped.lora_id) == shipped
    with pytest.raises(UnknownLora, match="comes with sdq"):
        await requests.answer(RemoveLora(3, shipped.lora_id))
