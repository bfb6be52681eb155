"""Which function of an official repository makes which network, for those who hold its files."""

from __future__ import annotations

# kdjax name -> constructors. A network that several repositories have is named after the first.
CONSTRUCTORS: dict[str, str] = {
    **{f"resnet{depth}": f"HSAKD resnet{depth}" for depth in (8, 14, 20, 44, 110)},
    **{
        f"resnet{depth}": f"HSAKD resnet{depth}; MCL resnet{depth}; MCL-OKD resnet{depth}"
        for depth in (32, 56)
    },
    **{f"resnet{depth}x4": f"HSAKD resnet{depth}x4" for depth in (8, 32)},
    "resnet110_bottleneck": "MCL resnet110; MCL-OKD resnet110",
    **{
        f"wrn_{widths}": f"HSAKD wrn_{widths}; MCL wrn_{widths}"
        for widths in ("16_1", "16_2", "28_4", "40_1", "40_2")
    },
    **{f"cifar_resnet{depth}": f"HSAKD ResNet{depth} (resnetv2.py)" for depth in (18, 34, 50)},
    **{f"selfkd_resnet{depth}": f"Self-KD-Lib CIFAR_ResNet{depth}" for depth in (18, 50)},
    **{f"mixskd_resnet{depth}": f"Self-KD-Lib MixSKD_CIFAR_ResNet{depth}" for depth in (18, 50)},
    **{f"sfp_resnet{depth}": f"SFP resnet{depth}" for depth in (20, 32, 44, 56, 110)},
    **{f"option_a_resnet{depth}": f"resnet{depth}, shortcuts A" for depth in (20, 32, 44, 56, 110)},
    **{f"resnet{depth}": f"torchvision resnet{depth}" for depth in (18, 34, 50, 101)},
    **{f"vgg{depth}": f"HSAKD vgg{depth}_bn" for depth in (8, 11, 13, 16, 19)},
    "vgg16_maxpool": "MCL-OKD vgg16",
    "mobilenetv2_half": "HSAKD mobilenetV2",
    "mobilenetv2": "HSAKD mobilenetv2_T_w(6, 1.0)",
    "mobilenetv2_imagenet": "torchvision mobilenet_v2; timm mobilenetv2_100",
    "shufflenetv2_2x_torchvision": "torchvision shufflenet_v2_x2_0",
    "shufflenetv1": "HSAKD ShuffleV1",
    "hsakd_shufflenetv2_05x": "HSAKD ShuffleNetV2(0.5)",
    "hsakd_shufflenetv2_1x": "HSAKD ShuffleV2",
    "shufflenetv2_05x": "MCL ShuffleNetV2_05x",
    "shufflenetv2_1x": "MCL ShuffleNetV2_1x",
    "shufflenetv2_15x": "MCL ShuffleNetV2(1.5)",
    "shufflenetv2_2x": "MCL ShuffleNetV2(2)",
    **{
        f"shufflenetv2_{size.replace('.', '')}x_imagenet": f"L-MCL ShuffleNetV2({size}), ImageNet"
        for size in ("0.5", "1", "1.5", "2")
    },
    "densenet_40_12": "MCL-OKD densenetd40k12",
    "hcgnet_a1": "MCL hcgnet_A1; MCL-OKD hcgnet_A1",
    "hcgnet_a2": "MCL hcgnet_A2; MCL-OKD hcgnet_A2",
}
