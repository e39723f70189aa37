"""Transformer encoders: ViT, as in timm, and BERT, as in Hugging Face's transformers."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from layoutsel.zoo.architectures.builder import NetworkBuilder, TensorRef, ints
from layoutsel.zoo.architectures.layers import IMAGE, classify, layer_norm, linear, mlp, patches

_HEAD_WIDTH = 64
"""Features of one attention head."""
_VIT_WIDTH, _VIT_LAYERS = 384, 12
"""Features of a token and number of layers of ViT."""
_BERT_WIDTH, _BERT_LAYERS = 768, 6
"""Features of a token and number of layers of BERT."""
_VOCABULARY, _TOKENS = 30522, 128
"""Size of the vocabulary and number of tokens of BERT."""
_MASKED = -10000.0
"""Value that is added to the score of a masked token."""


def vit_small_16(g: NetworkBuilder) -> None:
    """ViT-S/16 (Dosovitskiy et al., 2021; Touvron et al., 2021)."""
    width = _VIT_WIDTH
    x, count = patches(g, g.input("image", IMAGE), width)
    tokens = 1 + count
    x = g.op("Concat", (1, 1, width), x, axis=1)
    x = g.op("Add", x, (1, tokens, width))
    for _ in range(_VIT_LAYERS):
        heads = _joint_heads(g, layer_norm(g, x), tokens)
        x = g.op("Add", x, linear(g, _attend(g, heads, tokens, width), width))
        x = g.op("Add", x, mlp(g, layer_norm(g, x), 4 * width))
    classify(g, g.op("Gather", layer_norm(g, x), np.array(0), axis=1))


def bert_base_6l(g: NetworkBuilder) -> None:
    """First six layers of BERT-base without the pooler, for 128 tokens (Devlin et al., 2019)."""
    ids, mask, types = (
        g.input(name, (1, _TOKENS), TensorProto.INT64)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    x = g.op("Add", _embedded(g, ids, _VOCABULARY), _embedded(g, types, 2))
    x = layer_norm(g, g.op("Add", x, (1, _TOKENS, _BERT_WIDTH)))
    penalty = _penalty(g, mask)
    for _ in range(_BERT_LAYERS):
        heads = _separate_heads(g, x, _TOKENS)
        y = linear(g, _attend(g, heads, _TOKENS, _BERT_WIDTH, penalty), _BERT_WIDTH)
        x = layer_norm(g, g.op("Add", y, x))
        x = layer_norm(g, g.op("Add", mlp(g, x, 4 * _BERT_WIDTH), x))
    g.output(x, (1, _TOKENS, _BERT_WIDTH))


def _embedded(g: NetworkBuilder, ids: TensorRef, rows: int) -> TensorRef:
    return g.op("Gather", (rows, _BERT_WIDTH), ids, channels=_BERT_WIDTH, axis=0)


def _penalty(g: NetworkBuilder, mask: TensorRef) -> TensorRef:
    """Value to add to attention scores; `mask` is 1 for tokens to attend to, 0 for others."""
    rows = g.op("Unsqueeze", mask, ints(1, 2))
    masked = g.op("Sub", 1.0, g.op("Cast", rows, to=TensorProto.FLOAT))
    return g.op("Mul", masked, _MASKED)


def _joint_heads(g: NetworkBuilder, x: TensorRef, tokens: int) -> list[TensorRef]:
    """Queries, keys and values from one matrix, each (1, heads, tokens, features of a head)."""
    shape = ints(1, tokens, 3, x.channels // _HEAD_WIDTH, _HEAD_WIDTH)
    y = g.op("Reshape", linear(g, x, 3 * x.channels), shape, channels=x.channels)
    y = g.op("Transpose", y, perm=[2, 0, 3, 1, 4])
    return [g.op("Gather", y, np.array(index), axis=0) for index in range(3)]


def _separate_heads(g: NetworkBuilder, x: TensorRef, tokens: int) -> list[TensorRef]:
    """Queries, keys and values from three matrices, as in :func:`_joint_heads`."""
    shape = ints(1, tokens, x.channels // _HEAD_WIDTH, _HEAD_WIDTH)
    split = [g.op("Reshape", linear(g, x, x.channels), shape) for _ in range(3)]
    return [g.op("Transpose", y, perm=[0, 2, 1, 3]) for y in split]


def _attend(
    g: NetworkBuilder,
    heads: list[TensorRef],
    tokens: int,
    width: int,
    penalty: TensorRef | None = None,
) -> TensorRef:
    """Attention of all heads; returns (1, `tokens`, `width`)."""
    query, key, value = heads
    scores = g.op("MatMul", query, g.op("Transpose", key, perm=[0, 1, 3, 2]))
    scores = g.op("Div", scores, math.sqrt(_HEAD_WIDTH))
    if penalty:
        scores = g.op("Add", scores, penalty)
    y = g.op("MatMul", g.op("Softmax", scores, axis=-1), value)
    return g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3]), ints(1, tokens, width))
