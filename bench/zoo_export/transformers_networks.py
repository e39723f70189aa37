"""Networks of Hugging Face's transformers (Wolf et al., 2020; Apache-2.0).

Their names state what differs from the published configuration, such as the number of layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from recipes import Recipe, images

_Values = Mapping[str, Any]
"""Arguments of a configuration."""


def _tokens(size: int, _config: Any) -> dict[str, Any]:
    """Numbers of tokens, all of them attended to."""
    import torch

    one = torch.ones(1, size, dtype=torch.int64)
    return {"input_ids": one, "attention_mask": one}


def _ids(size: int, _config: Any) -> dict[str, Any]:
    import torch

    return {"input_ids": torch.ones(1, size, dtype=torch.int64)}


def _both(size: int, _config: Any) -> dict[str, Any]:
    """Tokens of an encoder, and half as many of a decoder."""
    import torch

    return {
        **_tokens(size, _config),
        "decoder_input_ids": torch.ones(1, size // 2, dtype=torch.int64),
    }


def _image(size: int, _config: Any) -> dict[str, Any]:
    return images(size, "pixel_values")


def _video(size: int, config: Any) -> dict[str, Any]:
    import torch

    return {"pixel_values": torch.randn(1, config.num_frames, 3, size, size)}


def _wave(size: int, _config: Any) -> dict[str, Any]:
    import torch

    return {"input_values": torch.randn(1, size)}


def _codec(size: int, _config: Any) -> dict[str, Any]:
    import torch

    return {"hidden_state": torch.randn(1, 1, size)}


def _whisper(size: int, config: Any) -> dict[str, Any]:
    import torch

    return {"input_features": torch.randn(1, config.num_mel_bins, size)}


def _frames(size: int, config: Any) -> dict[str, Any]:
    import torch

    return {"input_features": torch.randn(1, size, config.num_mel_bins)}


def _spectrogram(size: int, config: Any) -> dict[str, Any]:
    import torch

    return {"input_values": torch.randn(1, size, config.num_mel_bins)}


def _mel(size: int, config: Any) -> dict[str, Any]:
    import torch

    return {"spectrogram": torch.randn(1, size, config.model_in_dim)}


@dataclass(frozen=True)
class _Kind:
    """Kind of input."""

    size_of: str
    """Meaning of a size."""
    sizes: tuple[int, ...]
    """Sizes, unless the network states others."""
    inputs: Callable[[int, Any], dict[str, Any]]
    """Function of size and configuration: inputs by name."""


_KINDS: Mapping[str, _Kind] = {
    "text": _Kind("tokens", (128, 384), _tokens),
    "ids": _Kind("tokens", (128, 384), _ids),
    "texts": _Kind("tokens", (128, 384), _both),
    "image": _Kind("pixels", (224, 160), _image),
    "video": _Kind("pixels", (112, 160), _video),
    "wave": _Kind("samples", (16000, 32000), _wave),
    "codec": _Kind("samples", (8000, 16000), _codec),
    "whisper": _Kind("frames", (1000, 3000), _whisper),
    "frames": _Kind("frames", (200, 600), _frames),
    "spectrogram": _Kind("frames", (256, 1024), _spectrogram),
    "mel": _Kind("frames", (50, 100), _mel),
}
"""Kinds of inputs."""


@dataclass(frozen=True)
class _Entry:
    """A network of transformers."""

    families: tuple[str, ...]
    """Families, as in :class:`Recipe`."""
    model: str
    """Class of the model."""
    config: str
    """Class of its configuration."""
    kind: str
    """Key of :data:`_KINDS`."""
    values: _Values = dataclasses.field(default_factory=dict)
    """Arguments of the configuration that differ from its defaults."""
    sized: str | None = None
    """Argument of the configuration that is the size."""
    sizes: tuple[int, ...] | None = None
    """Sizes; None for those of the kind."""
    backbone: tuple[str, _Values] | None = None
    """Class of the backbone's configuration, with its arguments."""


def _width(hidden: int, layers: int, heads: int, inner: int, **others: Any) -> _Values:
    """Sizes of a transformer, by their usual names."""
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        **others,
    }


_SPEECH = _width(768, 4, 12, 3072)
"""First four layers of a base model of speech."""

_ENTRIES: Mapping[str, _Entry] = {
    # Text encoders.
    "albert_base": _Entry(("albert",), "AlbertModel", "AlbertConfig", "text", _width(768, 12, 12, 3072)),
    "bert_mini": _Entry(("bert",), "BertModel", "BertConfig", "text", _width(256, 4, 4, 1024)),
    "convbert_small": _Entry(("convbert",), "ConvBertModel", "ConvBertConfig", "text", _width(256, 12, 4, 1024, embedding_size=128), sizes=(128,)),
    "deberta_v3_xsmall_6l": _Entry(("deberta",), "DebertaV2Model", "DebertaV2Config", "text", _width(384, 6, 6, 1536, vocab_size=32000, relative_attention=True, position_buckets=256, norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"], max_relative_positions=-1, position_biased_input=False, type_vocab_size=0), sizes=(128,)),
    "distilbert": _Entry(("bert",), "DistilBertModel", "DistilBertConfig", "text"),
    "electra_small": _Entry(("bert",), "ElectraModel", "ElectraConfig", "text", _width(256, 12, 4, 1024, embedding_size=128)),
    "esm2_8m": _Entry(("esm",), "EsmModel", "EsmConfig", "text", _width(320, 6, 20, 1280, vocab_size=33, pad_token_id=0, mask_token_id=32, position_embedding_type="rotary", token_dropout=False, emb_layer_norm_before=False)),
    "modernbert_6l": _Entry(("modernbert",), "ModernBertModel", "ModernBertConfig", "text", _width(768, 6, 12, 1152, vocab_size=32000, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2), sizes=(128,)),
    "mpnet_6l": _Entry(("mpnet",), "MPNetModel", "MPNetConfig", "text", _width(768, 6, 12, 3072), sizes=(128,)),
    "roformer_small": _Entry(("roformer",), "RoFormerModel", "RoFormerConfig", "text", _width(384, 6, 6, 1536)),
    "squeezebert": _Entry(("squeezebert",), "SqueezeBertModel", "SqueezeBertConfig", "text"),
    "t5_small_encoder": _Entry(("t5",), "T5EncoderModel", "T5Config", "text", sizes=(128,)),
    "xlnet_4l": _Entry(("xlnet",), "XLNetModel", "XLNetConfig", "text", {"d_model": 768, "n_layer": 4, "n_head": 12, "d_inner": 3072}),
    # Decoders that read all tokens at once.
    "bart_small": _Entry(("bart",), "BartModel", "BartConfig", "texts", {"d_model": 512, "encoder_layers": 3, "decoder_layers": 3, "encoder_attention_heads": 8, "decoder_attention_heads": 8, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048, "vocab_size": 32000}),
    "bloom_6l": _Entry(("bloom",), "BloomModel", "BloomConfig", "text", {"hidden_size": 512, "n_layer": 6, "n_head": 8, "vocab_size": 32000}),
    "distilgpt2": _Entry(("gpt",), "GPT2Model", "GPT2Config", "text", {"n_layer": 6}),
    "gemma3_6l": _Entry(("gemma",), "Gemma3TextModel", "Gemma3TextConfig", "text", _width(640, 6, 4, 2048, num_key_value_heads=1, head_dim=256, vocab_size=32000, sliding_window=64), sizes=(128,)),
    "llama_68m": _Entry(("llama",), "LlamaModel", "LlamaConfig", "text", _width(768, 2, 12, 3072)),
    "opt_125m_4l": _Entry(("gpt",), "OPTModel", "OPTConfig", "text", {"hidden_size": 768, "num_hidden_layers": 4, "num_attention_heads": 12, "ffn_dim": 3072, "word_embed_proj_dim": 768}),
    "phi_4l": _Entry(("phi",), "PhiModel", "PhiConfig", "text", _width(768, 4, 12, 3072, vocab_size=32000)),
    "pythia_14m": _Entry(("gpt_neox",), "GPTNeoXModel", "GPTNeoXConfig", "text", _width(128, 6, 4, 512)),
    "qwen3_4l": _Entry(("qwen",), "Qwen3Model", "Qwen3Config", "text", _width(1024, 4, 16, 3072, num_key_value_heads=8, head_dim=128, vocab_size=32000)),
    "smollm_135m_6l": _Entry(("llama",), "LlamaModel", "LlamaConfig", "text", _width(576, 6, 9, 1536, num_key_value_heads=3)),
    # Images and video.
    "clip_text": _Entry(("clip",), "CLIPTextModel", "CLIPTextConfig", "text", _width(512, 6, 8, 2048), sizes=(77,)),
    "cvt_13": _Entry(("cvt",), "CvtModel", "CvtConfig", "image"),
    "depth_anything_tiny": _Entry(("dpt", "vit"), "DepthAnythingForDepthEstimation", "DepthAnythingConfig", "image", {"reassemble_hidden_size": 192, "neck_hidden_sizes": [48, 96, 192, 384], "fusion_hidden_size": 64}, sizes=(252, 168), backbone=("Dinov2Config", _width(192, 12, 3, 768, image_size=518, patch_size=14, out_features=["stage3", "stage6", "stage9", "stage12"], reshape_hidden_states=False))),
    "detr_resnet50": _Entry(("detr", "resnet"), "DetrForObjectDetection", "DetrConfig", "image", {"use_timm_backbone": False, "use_pretrained_backbone": False}, sizes=(320,), backbone=("ResNetConfig", {"out_features": ["stage4"]})),
    "rtdetr_r18": _Entry(("rtdetr", "resnet"), "RTDetrForObjectDetection", "RTDetrConfig", "image", {"encoder_in_channels": [128, 256, 512], "decoder_layers": 3, "hidden_expansion": 0.5}, sizes=(320,), backbone=("RTDetrResNetConfig", {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "out_features": ["stage2", "stage3", "stage4"]})),
    "segformer_b0": _Entry(("segformer",), "SegformerForSemanticSegmentation", "SegformerConfig", "image", sizes=(256, 512)),
    "swin2sr": _Entry(("swin",), "Swin2SRForImageSuperResolution", "Swin2SRConfig", "image", {"embed_dim": 60, "depths": [4, 4], "num_heads": [6, 6]}, sized="image_size", sizes=(64,)),
    "upernet_convnext": _Entry(("upernet", "convnext"), "UperNetForSemanticSegmentation", "UperNetConfig", "image", {"hidden_size": 128, "auxiliary_in_channels": 160}, sizes=(256, 512), backbone=("ConvNextConfig", {"depths": [2, 2, 6, 2], "hidden_sizes": [40, 80, 160, 320], "out_features": ["stage1", "stage2", "stage3", "stage4"]})),
    "videomae_small_6l": _Entry(("videomae", "vit"), "VideoMAEModel", "VideoMAEConfig", "video", _width(384, 6, 6, 1536, num_frames=8), sized="image_size"),
    "vitpose_tiny": _Entry(("vitpose", "vit"), "VitPoseForPoseEstimation", "VitPoseConfig", "image", {"num_labels": 17}, sizes=(192,), backbone=("VitPoseBackboneConfig", {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "image_size": [192, 192], "out_indices": [12]})),
    "yolos_tiny": _Entry(("yolos", "vit"), "YolosForObjectDetection", "YolosConfig", "image", _width(192, 12, 3, 768, num_detection_tokens=100, image_size=[256, 256]), sizes=(256,)),
    # Speech and audio.
    "ast_tiny": _Entry(("ast", "vit"), "ASTModel", "ASTConfig", "spectrogram", _width(192, 12, 3, 768), sized="max_length"),
    "conformer_4l": _Entry(("conformer",), "Wav2Vec2ConformerModel", "Wav2Vec2ConformerConfig", "wave", {**_width(512, 4, 8, 2048), "position_embeddings_type": "relative", "conv_depthwise_kernel_size": 31}),
    "dac_encoder": _Entry(("dac",), "DacModel", "DacConfig", "codec", {"encoder_hidden_size": 32}),
    "hifigan": _Entry(("hifigan",), "SpeechT5HifiGan", "SpeechT5HifiGanConfig", "mel"),
    "moonshine_tiny_encoder": _Entry(("moonshine",), "MoonshineModel", "MoonshineConfig", "wave"),
    "parakeet_4l": _Entry(("conformer",), "ParakeetEncoder", "ParakeetEncoderConfig", "frames", {**_width(256, 4, 4, 1024), "subsampling_conv_channels": 128}),
    "sew_4l": _Entry(("sew", "wav2vec2"), "SEWModel", "SEWConfig", "wave", _width(512, 4, 8, 2048)),
    "wav2vec2_base_4l": _Entry(("wav2vec2",), "Wav2Vec2Model", "Wav2Vec2Config", "wave", _SPEECH),
    "wavlm_base_4l": _Entry(("wavlm", "wav2vec2"), "WavLMModel", "WavLMConfig", "wave", _SPEECH),
    "whisper_tiny_encoder": _Entry(("whisper",), "WhisperModel", "WhisperConfig", "whisper", {"d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536, "decoder_layers": 1, "decoder_attention_heads": 6, "decoder_ffn_dim": 1536}),
}  # fmt: skip
"""Networks by name."""


def _configuration(entry: _Entry, size: int) -> Any:
    import transformers

    values = dict(entry.values)
    if entry.sized is not None:
        values[entry.sized] = size
    if entry.kind == "whisper":
        values["max_source_positions"] = size // 2
    if entry.backbone is not None:
        backbone, given = entry.backbone
        values["backbone_config"] = getattr(transformers, backbone)(**given)
    return getattr(transformers, entry.config)(**values, attn_implementation="eager")


def _build(entry: _Entry, name: str, size: int) -> tuple[Any, Mapping[str, Any]]:
    import transformers

    config = _configuration(entry, size)
    model = getattr(transformers, entry.model)(config).eval()
    inputs = _KINDS[entry.kind].inputs(size, config)
    if name.endswith("_encoder"):
        model = model.get_encoder() if hasattr(model, "get_encoder") else model.encoder
    return model, inputs


NETWORKS: Mapping[str, Recipe] = {
    name: Recipe(
        families=entry.families,
        package="transformers",
        source=entry.model,
        size_of=_KINDS[entry.kind].size_of,
        sizes=entry.sizes or _KINDS[entry.kind].sizes,
        build=partial(_build, entry, name),
        by_name=True,
    )
    for name, entry in _ENTRIES.items()
}
"""Recipes by name."""
