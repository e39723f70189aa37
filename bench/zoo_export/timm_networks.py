"""Image networks of timm (Wightman, 2019; Apache-2.0)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from recipes import Recipe, images

USUAL = (224, 160)
"""Sizes of networks that take any multiple of 32 pixels."""

_NETWORKS: Mapping[str, tuple[str, str, tuple[int, ...]]] = {
    "beit_base_2l": ("beit", "beit_base_patch16_224", (224,)),
    "botnet26t": ("byoanet", "botnet26t_256", (256, 192)),
    "coat_lite_tiny": ("coat", "coat_lite_tiny", USUAL),
    "coatnet_pico": ("maxvit", "coatnet_pico_rw_224", (224, 192)),
    "convit_tiny": ("convit", "convit_tiny", USUAL),
    "convnextv2_atto": ("convnext", "convnextv2_atto", USUAL),
    "crossvit_9": ("crossvit", "crossvit_9_240", (240,)),
    "cspdarknet53": ("cspnet", "cspdarknet53", USUAL),
    "cspresnet50": ("cspnet", "cspresnet50", USUAL),
    "deit_tiny": ("vit", "deit_tiny_patch16_224", USUAL),
    "densenetblur121d": ("densenet", "densenetblur121d", USUAL),
    "dla34": ("dla", "dla34", USUAL),
    "dpn48b": ("dpn", "dpn48b", USUAL),
    "edgenext_xx_small": ("edgenext", "edgenext_xx_small", (256, 160)),
    "efficientformer_l1": ("efficientformer", "efficientformer_l1", (224,)),
    "efficientformerv2_s0": ("efficientformer", "efficientformerv2_s0", (224,)),
    "efficientnet_lite0": ("efficientnet", "efficientnet_lite0", USUAL),
    "efficientnetv2_b0": ("efficientnet", "tf_efficientnetv2_b0", (192, 224)),
    "efficientvit_b0": ("efficientvit_mit", "efficientvit_b0", USUAL),
    "eva02_tiny": ("eva", "eva02_tiny_patch14_224", (224, 168)),
    "fasternet_t0": ("fasternet", "fasternet_t0", USUAL),
    "fastvit_t8": ("fastvit", "fastvit_t8", (256, 160)),
    "fbnetc_100": ("mnasnet", "fbnetc_100", USUAL),
    "focalnet_tiny": ("focalnet", "focalnet_tiny_srf", USUAL),
    "gcvit_xxtiny": ("gcvit", "gcvit_xxtiny", (224,)),
    "gernet_s": ("gernet", "gernet_s", USUAL),
    "gmlp_ti16": ("mlp", "gmlp_ti16_224", (224,)),
    "halonet26t": ("byoanet", "halonet26t", (256,)),
    "hgnetv2_b0": ("hgnet", "hgnetv2_b0", USUAL),
    "hiera_tiny": ("hiera", "hiera_tiny_224", (224,)),
    "hrnet_w18_small": ("hrnet", "hrnet_w18_small", USUAL),
    "inception_next_atto": ("inception_next", "inception_next_atto", USUAL),
    "inception_v3": ("inception", "inception_v3", (299, 235)),
    "lambda_resnet26t": ("byoanet", "lambda_resnet26t", (256, 192)),
    "lcnet_050": ("lcnet", "lcnet_050", USUAL),
    "mambaout_femto": ("mambaout", "mambaout_femto", USUAL),
    "mixnet_s": ("mixnet", "mixnet_s", USUAL),
    "mnasnet_small": ("mnasnet", "mnasnet_small", USUAL),
    "mobilenetv1_100": ("mobilenet", "mobilenetv1_100", USUAL),
    "mobilenetv3_small_100": ("mobilenet", "mobilenetv3_small_100", USUAL),
    "mobilenetv4_conv_small": ("mobilenet", "mobilenetv4_conv_small", USUAL),
    "mobilenetv4_hybrid_medium": ("mobilenet", "mobilenetv4_hybrid_medium", USUAL),
    "mobileone_s0": ("mobileone", "mobileone_s0", USUAL),
    "nest_tiny": ("nest", "nest_tiny", (224,)),
    "nextvit_small": ("nextvit", "nextvit_small", USUAL),
    "pit_ti": ("pit", "pit_ti_224", (224,)),
    "pvt_v2_b0": ("pvt", "pvt_v2_b0", USUAL),
    "rdnet_tiny": ("rdnet", "rdnet_tiny", USUAL),
    "regnetx_004": ("regnet", "regnetx_004", USUAL),
    "regnetz_005": ("regnet", "regnetz_005", USUAL),
    "repvit_m0_9": ("repvit", "repvit_m0_9", USUAL),
    "resmlp_12": ("mlp", "resmlp_12_224", (224,)),
    "resnest14d": ("resnest", "resnest14d", USUAL),
    "resnet34": ("resnet", "resnet34", (256, 160)),
    "resnet50d": ("resnet", "resnet50d", USUAL),
    "resnetv2_50": ("resnetv2", "resnetv2_50", USUAL),
    "resnetv2_50x1_bit": ("resnetv2", "resnetv2_50x1_bit", USUAL),
    "rexnet_100": ("rexnet", "rexnet_100", USUAL),
    "selecsls42b": ("selecsls", "selecsls42b", USUAL),
    "seresnext26d": ("resnet", "seresnext26d_32x4d", USUAL),
    "shvit_s1": ("shvit", "shvit_s1", USUAL),
    "skresnet18": ("sknet", "skresnet18", USUAL),
    "starnet_s1": ("starnet", "starnet_s1", USUAL),
    "swiftformer_xs": ("swiftformer", "swiftformer_xs", USUAL),
    "swinv2_tiny": ("swin", "swinv2_tiny_window8_256", (256,)),
    "tiny_vit_5m": ("tiny_vit", "tiny_vit_5m_224", (224,)),
    "tresnet_m": ("tresnet", "tresnet_m", USUAL),
    "twins_pcpvt_small": ("twins", "twins_pcpvt_small", (224,)),
    "vit_relpos_medium": ("vit", "vit_relpos_medium_patch16_224", USUAL),
    "vit_tiny_r_s16": ("vit", "vit_tiny_r_s16_p8_224", USUAL),
    "vovnet19b_dw": ("vovnet", "ese_vovnet19b_dw", USUAL),
    "xception41": ("xception", "xception41", (299, 224)),
    "xcit_nano_12": ("xcit", "xcit_nano_12_p16_224", (224,)),
}
"""Family, name in timm, and sizes in pixels of each network."""

_OPTIONS: Mapping[str, Mapping[str, Any]] = {"beit_base_2l": {"depth": 2}}
"""Options for networks that are too large otherwise."""


def _build(source: str, options: Mapping[str, Any], size: int) -> tuple[Any, Mapping[str, Any]]:
    import timm
    from timm.layers import set_exportable, set_fused_attn
    from timm.utils import reparameterize_model

    set_exportable(True)
    set_fused_attn(False)
    try:
        model = timm.create_model(source, pretrained=False, img_size=size, **options)
    except TypeError:  # of any size
        model = timm.create_model(source, pretrained=False, **options)
    return reparameterize_model(model.eval()), images(size)


NETWORKS: Mapping[str, Recipe] = {
    name: Recipe(
        families=(family,),
        package="timm",
        source=source,
        size_of="pixels",
        sizes=sizes,
        build=partial(_build, source, _OPTIONS.get(name, {})),
    )
    for name, (family, source, sizes) in _NETWORKS.items()
}
"""Recipes by name."""
