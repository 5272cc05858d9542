"""What a single checkpoint calls the weights that diffusers' folders hold.

Such files keep the names of the programs that the models were trained with: blocks counted
through from the input, attention as a convolution, and OpenCLIP's three projections in one
tensor.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy

from sdq.testing.full_size.layouts import Layout
from sdq.testing.full_size.weights import Entry, Numbers

PREFIXES: dict[Layout, dict[str, str]] = {
    "sd1": {
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "text_encoder": "cond_stage_model.transformer.",
    },
    "sdxl": {
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "text_encoder": "conditioner.embedders.0.transformer.",
        "text_encoder_2": "conditioner.embedders.1.model.",
    },
}

_UNET_PARTS = {  # of a residual block
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_VAE_PARTS = {
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_OPEN_CLIP_PARTS = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn": "attn",
    "fc1": "c_fc",
    "fc2": "c_proj",
}
_LAYERS_PER_BLOCK = 2
_VAE_BLOCKS = 4


def renamed(layout: Layout, part: str, entries: Iterable[Entry]) -> Iterator[Entry]:
    """The entries of a part as a checkpoint holds them: new names, some in another shape."""
    ways: dict[str, Callable[[list[Entry]], Iterator[Entry]]] = {
        "unet": _unet,
        "vae": _vae,
        "text_encoder": iter,
        "text_encoder_2": _open_clip,
    }
    for entry in ways[part](list(entries)):
        yield Entry(PREFIXES[layout][part] + entry.name, entry.shape, entry.make)


# ---------------------------------------------------------------- UNet


def _unet(entries: list[Entry]) -> Iterator[Entry]:
    with_attention = {
        int(found[1])
        for entry in entries
        if (found := re.match(r"up_blocks\.(\d+)\.attentions", entry.name))
    }
    for entry in entries:
        yield Entry(_unet_name(entry.name, with_attention), entry.shape, entry.make)


def _unet_name(name: str, with_attention: set[int]) -> str:
    for old, new in _UNET_OUTSIDE.items():
        if name.startswith(old + "."):
            return _unet_inside(new + name.removeprefix(old))
    way, block_text, kind, number_text, rest = name.split(".", 4)
    block, number = int(block_text), int(number_text)
    if way == "down_blocks":
        first = (_LAYERS_PER_BLOCK + 1) * block + 1
        place = {
            "resnets": f"input_blocks.{first + number}.0",
            "attentions": f"input_blocks.{first + number}.1",
            "downsamplers": f"input_blocks.{first + _LAYERS_PER_BLOCK}.0",
        }[kind]
        rest = rest.replace("conv", "op", 1) if kind == "downsamplers" else rest
    else:
        first = (_LAYERS_PER_BLOCK + 1) * block
        last = f"output_blocks.{first + _LAYERS_PER_BLOCK}"
        place = {
            "resnets": f"output_blocks.{first + number}.0",
            "attentions": f"output_blocks.{first + number}.1",
            "upsamplers": f"{last}.{2 if block in with_attention else 1}",
        }[kind]
    return _unet_inside(f"{place}.{rest}")


def _unet_inside(name: str) -> str:
    """Inside a block: what attention is made of has the same names in both."""
    if ".transformer_blocks." in name:
        return name
    for old, new in _UNET_PARTS.items():
        name = name.replace(f".{old}.", f".{new}.")
    return name


# ---------------------------------------------------------------- VAE


def _vae(entries: list[Entry]) -> Iterator[Entry]:
    for entry in entries:
        name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", entry.name)
        name = re.sub(r"down_blocks\.(\d)", r"down.\1", name)
        name = re.sub(r"up_blocks\.(\d)", _counted_back, name)
        name = re.sub(r"(up\.\d)\.resnets", r"\1.block", name)
        for old, new in _VAE_PARTS.items():
            name = name.replace(f".{old}.", f".{new}.")
        as_convolution = ".attn_1." in name and len(entry.shape) == 2
        yield _with_sides(name, entry) if as_convolution else Entry(name, entry.shape, entry.make)


def _counted_back(found: "re.Match[str]") -> str:
    """The decoder's blocks are counted from the picture there."""
    return f"up.{_VAE_BLOCKS - 1 - int(found[1])}"


def _with_sides(name: str, entry: Entry) -> Entry:
    shape = (*entry.shape, 1, 1)
    return Entry(name, shape, lambda: entry.make().reshape(shape))


# ---------------------------------------------------------------- OpenCLIP


def _open_clip(entries: list[Entry]) -> Iterator[Entry]:
    by_name = {entry.name: entry for entry in entries}
    for entry in entries:
        name = entry.name
        if ".self_attn." in name and ".out_proj." not in name:
            if ".q_proj." in name:
                yield _joined(_open_clip_name(name), [by_name[_other(name, x)] for x in "qkv"])
        elif name == "text_projection.weight":
            yield _turned(entry)
        else:
            yield Entry(_open_clip_name(name), entry.shape, entry.make)


def _other(name: str, letter: str) -> str:
    return name.replace(".q_proj.", f".{letter}_proj.")


def _open_clip_name(name: str) -> str:
    name = name.replace(".q_proj.", ".in_proj_")
    for old, new in _OPEN_CLIP_PARTS.items():
        name = name.replace(old, new)
    return name


def _joined(name: str, parts: list[Entry]) -> Entry:
    rows = sum(part.shape[0] for part in parts)

    def make() -> Numbers:
        joined: Any = numpy.concatenate([part.make() for part in parts])
        return joined

    return Entry(name, (rows, *parts[0].shape[1:]), make)


def _turned(entry: Entry) -> Entry:
    """OpenCLIP multiplies from the other side."""
    rows, columns = entry.shape
    return Entry("text_projection", (columns, rows), lambda: entry.make().T)
