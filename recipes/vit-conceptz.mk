# Whose: VIT_Conceptz, ImageCLEFmedical Caption 2024
# Published: 0.181 0.264
# Source: second-hand: papers that cite the team's working notes
# Known: ResNet50, MobileNetV2 and DenseNet-121
# Filled in: all frozen; a dense head on each; the mean of their scores; threshold 0.5
MEMBERS  := resnet50 mobilenetv2 densenet121
HOW      := mean
BACKBONE  = $(MEMBER)
SIZE     := 224
POOLING  := avg
HEAD     := dense
SET      := learning_rate=0.001 decay=1.0
DECODER  := fixed:0.5
