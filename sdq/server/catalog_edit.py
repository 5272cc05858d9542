"""Changing an operator's catalog file: one entry at a time, all else and its comments as it was.

Each function takes the text of the file and gives the new one, which `sdq.server.catalog_file`
reads; nothing is written here.
"""

from typing import Any

import msgspec
import tomlkit
import tomlkit.items

from sdq.protocol.model import LoraManifest, ModelFile, ModelManifest

_HEAD = "Models of this server's own; `sdq model add` and `sdq model remove` change it."


def with_model(text: str, manifest: ModelManifest) -> str:
    """With this model, in place of its entry when it has one."""
    document = _parsed(text)
    models = document.setdefault("models", tomlkit.table(is_super_table=True))
    models[manifest.model_id] = _entry(manifest)
    return tomlkit.dumps(document)


def without_model(text: str, model_id: str) -> str:
    """Without it; without a ``default`` that names it. Raises `KeyError` when it is not there."""
    document = _parsed(text)
    models: Any = document.get("models", {})
    del models[model_id]
    if document.get("default") == model_id:
        del document["default"]
    return tomlkit.dumps(document)


def with_lora(text: str, manifest: LoraManifest) -> str:
    """With this LoRA, in place of its entry when it has one."""
    document = _parsed(text)
    loras = document.setdefault("loras", tomlkit.table(is_super_table=True))
    loras[manifest.lora_id] = _lora_entry(manifest)
    return tomlkit.dumps(document)


def without_lora(text: str, lora_id: str) -> str:
    """Without it. Raises `KeyError` when it is not there."""
    document = _parsed(text)
    loras: Any = document.get("loras", {})
    del loras[lora_id]
    return tomlkit.dumps(document)


def with_default(text: str, model_id: str) -> str:
    """With ``default`` at its head."""
    document = _parsed(text)
    if "default" in document:
        document["default"] = model_id
        return tomlkit.dumps(document)
    line = tomlkit.document()
    line["default"] = model_id
    return tomlkit.dumps(line) + "\n" + tomlkit.dumps(document)


def _parsed(text: str) -> tomlkit.TOMLDocument:
    if text.strip():
        return tomlkit.parse(text)
    document = tomlkit.document()
    document.add(tomlkit.comment(_HEAD))
    document.add(tomlkit.nl())
    return document


def _entry(manifest: ModelManifest) -> tomlkit.items.Table:
    """As the shipped catalog is written; what is at its default is left out."""
    fields = msgspec.to_builtins(manifest)
    for name in ("model_id", "fingerprint", "files"):
        del fields[name]
    table = tomlkit.table()
    tables = {name: fields.pop(name) for name in ("defaults", "limits")}
    for name, value in fields.items():
        if value not in (None, "", False):
            table[name] = value
    for name, value in tables.items():
        table[name] = value
    files = tomlkit.aot()
    for file in manifest.files:
        files.append(_file(file))
    table["files"] = files
    return table


def _lora_entry(manifest: LoraManifest) -> tomlkit.items.Table:
    table = tomlkit.table()
    table["title"] = manifest.title
    table["license"] = manifest.license
    table["models"] = list(manifest.models)
    if manifest.weight != 1.0:
        table["weight"] = manifest.weight
    if manifest.trigger:
        table["trigger"] = manifest.trigger
    table["file"] = _file(manifest.file)
    return table


def _file(file: ModelFile) -> tomlkit.items.Table:
    table = tomlkit.table()
    table["path"] = file.path
    if file.size_bytes is not None:
        table["size_bytes"] = file.size_bytes
    table["sha256"] = file.sha256
    links = tomlkit.array()
    links.extend(file.links)
    table["links"] = links.multiline(len(file.links) > 1)
    return table
