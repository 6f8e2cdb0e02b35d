# Whose: DBS-HHU, ImageCLEFmedical Caption 2024, first in the table
# Published: 0.637 0.953
# Source: the organisers' table and overview of 2024
# Known: an ensemble of four different convolutional networks
# Filled in: which four, all frozen; a dense head on each; the mean of their scores; one threshold, swept on folds of train
MEMBERS  := densenet121 efficientnetb0 resnet50 xception
HOW      := mean
BACKBONE  = $(MEMBER)
SIZE     := 224
POOLING  := avg
HEAD     := dense
SET      := learning_rate=0.001 decay=1.0
DECODER  := global
