# Whose: DS@BioMed, ImageCLEFmedical Caption 2024
# Published: 0.619 0.931
# Source: the team's working notes at CLEF 2024; the organisers' table of results
# Known: Swin-V2, then 1024 and 512 ReLU units with dropout 0.4, binary cross-entropy, threshold 0.5
# Filled in: Keras has no Swin; ConvNeXt-Tiny, a convolutional network of the same plan, stands in its place, frozen;
#     learning rate 1e-4
BACKBONE := convnexttiny
SIZE     := 224
POOLING  := avg
HEAD     := dense
SET      := hidden=1024,512 dropout=0.4 learning_rate=0.0001 decay=1.0
DECODER  := fixed:0.5
