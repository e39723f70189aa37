"""Small networks in the style of real ones, exported by PyTorch to ONNX: shared by all tests.

Weights are random, batch-norm statistics included, so that a mistake in folding them shows.
"""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import onnx
import torch
from torch import nn
from torch.nn import functional as F

IMAGE = (1, 3, 32, 32)


def _conv_norm(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int, gate: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.expand = nn.Conv2d(channels // 4, channels, 1)
        self.gate = gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = F.adaptive_avg_pool2d(x, 1)
        return x * self.gate(self.expand(F.relu(self.reduce(scale))))


class _InvertedResidual(nn.Module):
    """Expand, depthwise, squeeze-excite, project: the block of MobileNetV3 and EfficientNet."""

    def __init__(self, channels: int, act: Callable, gate: Callable, stride: int = 1) -> None:
        super().__init__()
        hidden = channels * 4
        self.expand = _conv_norm(channels, hidden, 1)
        self.depthwise = _conv_norm(hidden, hidden, 5, stride, groups=hidden)
        self.excite = _SqueezeExcite(hidden, gate)
        self.project = _conv_norm(hidden, channels, 1)
        self.act, self.residual = act, stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.depthwise(self.act(self.expand(x))))
        y = self.project(self.excite(y))
        return x + y if self.residual else y


class _Mobile(nn.Module):
    def __init__(self, act: Callable, gate: Callable) -> None:
        super().__init__()
        self.stem = _conv_norm(3, 16, 3, 2)
        self.blocks = nn.Sequential(
            _InvertedResidual(16, act, gate, 2), _InvertedResidual(16, act, gate)
        )
        self.head = nn.Linear(16, 10)
        self.dropout = nn.Dropout(0.2)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.adaptive_avg_pool2d(self.blocks(self.act(self.stem(x))), 1)
        return self.head(self.dropout(torch.flatten(y, 1)))


def mobilenet_v3() -> nn.Module:
    """Depthwise convolutions, hard-swish, squeeze-excite with hard-sigmoid."""
    return _Mobile(F.hardswish, F.hardsigmoid)


def efficientnet() -> nn.Module:
    """Depthwise convolutions, SiLU, squeeze-excite with sigmoid."""
    return _Mobile(F.silu, torch.sigmoid)


class _ShuffleNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv_norm(3, 16, 3, 2)
        self.right = nn.Sequential(
            _conv_norm(8, 8, 1),
            nn.ReLU(),
            _conv_norm(8, 8, 3, groups=8),
            _conv_norm(8, 8, 1),
            nn.ReLU(),
        )
        self.grouped = nn.Conv2d(16, 32, 1, groups=4)
        self.pool = nn.MaxPool2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(F.relu6(self.stem(x)))
        left, right = x.chunk(2, dim=1)
        y = torch.cat((left, self.right(right)), dim=1)
        batch, channels, height, width = y.size()
        y = y.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return self.grouped(y.view(batch, channels, height, width)).mean([2, 3])


def shufflenet_v2() -> nn.Module:
    """Channel split, shuffle by reshape and transpose, grouped convolution."""
    return _ShuffleNet()


class _ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.depthwise = nn.Conv2d(16, 16, 7, padding=3, groups=16)
        self.norm = nn.LayerNorm(16, eps=1e-6)
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 16)
        self.gamma = nn.Parameter(torch.rand(16))
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.down(F.gelu(self.up(y)))
        x = x + y.permute(0, 3, 1, 2)
        return self.head(x.mean([-2, -1]))


def convnext() -> nn.Module:
    """Depthwise 7×7, channels-last LayerNorm and GELU, layer scale."""
    return _ConvNeXt()


class _UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = _conv_norm(3, 8), _conv_norm(8, 16)
        self.middle = _conv_norm(16, 16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.up_norm = nn.BatchNorm2d(8)
        self.join1, self.join2 = _conv_norm(24, 8), _conv_norm(16, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = F.relu(self.down1(x))
        b = F.relu(self.down2(F.max_pool2d(a, 2)))
        y = F.leaky_relu(self.middle(F.max_pool2d(b, 2)), 0.1)
        y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
        y = F.relu(
            self.join1(
                torch.cat([y, F.pad(self.up_norm(self.up(F.max_pool2d(b, 2))), [0, 0, 0, 0])], 1)
            )
        )
        y = F.interpolate(y, size=x.shape[2:], mode="nearest")
        dy, dx = a.size(2) - y.size(2), a.size(3) - y.size(3)
        y = F.pad(y, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
        y = F.pad(torch.cat([y, a], 1), [1, 1, 1, 1], mode="reflect")
        return torch.sigmoid(self.head(F.relu(self.join2(y))))


def unet() -> nn.Module:
    """Transposed convolution, bilinear and nearest resizing, concatenation, padding computed from shapes."""
    return _UNet()


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)
        scores = scores if mask is None else scores + mask
        return self.project((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, *, approximate: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = _Attention(width, heads)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.approximate = approximate

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        x = x + self.attention(self.norm1(x), mask)
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate=self.approximate))


class _ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.position = nn.Parameter(torch.randn(1, 17, 32))
        self.blocks = nn.ModuleList(_Block(32, 4, approximate="none") for _ in range(2))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def vit() -> nn.Module:
    """Patches, class token, attention, LayerNorm, erf-GELU."""
    return _ViT()


class _Bert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions, self.types = (
            nn.Embedding(50, 32),
            nn.Embedding(16, 32),
            nn.Embedding(2, 32),
        )
        self.norm = nn.LayerNorm(32, eps=1e-12)
        self.blocks = nn.ModuleList(_Block(32, 4, approximate="tanh") for _ in range(2))
        self.pooler = nn.Linear(32, 32)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        positions = torch.arange(input_ids.shape[1])
        x = self.words(input_ids) + self.positions(positions)[None] + self.types(token_type_ids)
        x = self.norm(x)
        mask = (1.0 - attention_mask[:, None, None, :].float()) * -10000.0
        for block in self.blocks:
            x = block(x, mask)
        return x, torch.tanh(self.pooler(x[:, 0]))


def bert() -> nn.Module:
    """Embeddings of integer inputs, attention with a mask, tanh-GELU, two outputs."""
    return _Bert()


class _DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv_norm(3, 8, 7, 2)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(
            nn.Conv2d(8 + 4 * i, 4, 3, padding=1, bias=False) for i in range(3)
        )
        self.last = nn.BatchNorm2d(20)
        self.head = nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.avg_pool2d(F.relu(self.stem(x)), 3, 2, ceil_mode=True)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        y = F.adaptive_avg_pool2d(F.relu(self.last(x)), 1)
        return F.log_softmax(self.head(y.flatten(1)), dim=1)


def densenet() -> nn.Module:
    """Batch norm before convolutions, growing concatenations."""
    return _DenseNet()


class _ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv_norm(3, 16, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.a, self.b = _conv_norm(16, 32, 3, 2), _conv_norm(32, 32)
        self.shortcut = _conv_norm(16, 32, 1, 2)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = F.relu(self.b(F.relu(self.a(x))) + self.shortcut(x))
        return F.softmax(self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)), -1)


def resnet() -> nn.Module:
    """Residual block with a strided shortcut."""
    return _ResNet()


MODELS: Mapping[str, Callable[[], nn.Module]] = {
    "bert": bert,
    "convnext": convnext,
    "densenet": densenet,
    "efficientnet": efficientnet,
    "mobilenet_v3": mobilenet_v3,
    "resnet": resnet,
    "shufflenet_v2": shufflenet_v2,
    "unet": unet,
    "vit": vit,
}
"""Builders of the small networks, by name."""


def example_inputs(name: str) -> tuple[torch.Tensor, ...]:
    """Inputs for a network of :data:`MODELS`."""
    generator = torch.Generator().manual_seed(0)
    if name == "bert":
        ids = torch.randint(0, 50, (1, 12), generator=generator)
        mask = (torch.arange(12) < 9).long()[None]
        return ids, mask, (torch.arange(12) > 5).long()[None]
    return (torch.randn(IMAGE, generator=generator),)


def _randomise(module: nn.Module) -> nn.Module:
    """Give batch norms statistics and parameters away from their trivial initial values."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 1.5)
        if isinstance(part, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
    return module.eval()


def torch_model(name: str, seed: int = 0) -> nn.Module:
    """A network of :data:`MODELS` with seeded weights, in evaluation mode."""
    torch.manual_seed(seed)
    with torch.no_grad():
        return _randomise(MODELS[name]())


def export(
    module: nn.Module, inputs: tuple[torch.Tensor, ...], *, dynamo: bool = False, **options: Any
) -> onnx.ModelProto:
    """Export a PyTorch module to ONNX with one of PyTorch's two exporters."""
    buffer = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            program = torch.onnx.export(module, inputs, dynamo=True, verbose=False, **options)
            return program.model_proto
        torch.onnx.export(module, inputs, buffer, dynamo=False, **options)
    return onnx.load_from_string(buffer.getvalue())


def onnx_model(
    name: str, *, dynamo: bool = False, seed: int = 0, **options: Any
) -> onnx.ModelProto:
    """A network of :data:`MODELS` as ONNX."""
    return export(torch_model(name, seed), example_inputs(name), dynamo=dynamo, **options)
