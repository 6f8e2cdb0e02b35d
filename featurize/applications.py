"""The names of Keras' applications, so that a misspelt one is refused without importing Keras, which takes seconds."""

APPLICATIONS = frozenset({
    "convnextbase", "convnextlarge", "convnextsmall", "convnexttiny", "convnextxlarge", "densenet121", "densenet169",
    "densenet201", "efficientnetb0", "efficientnetb1", "efficientnetb2", "efficientnetb3", "efficientnetb4",
    "efficientnetb5", "efficientnetb6", "efficientnetb7", "efficientnetv2b0", "efficientnetv2b1", "efficientnetv2b2",
    "efficientnetv2b3", "efficientnetv2l", "efficientnetv2m", "efficientnetv2s", "inceptionresnetv2", "inceptionv3",
    "mobilenet", "mobilenetv2", "mobilenetv3large", "mobilenetv3small", "nasnetlarge", "nasnetmobile", "resnet101",
    "resnet101v2", "resnet152", "resnet152v2", "resnet50", "resnet50v2", "vgg16", "vgg19", "xception",
})  # fmt: skip
"""Those of Keras 3.15, in lower case. Another version may have others."""
