# Whose: SSNMLRGKSR, ImageCLEFmedical Caption 2024, run 421 (Model1)
# Published: 0.546 0.796
# Source: the team's working notes at CLEF 2024; the organisers' table of results
# Known: DenseNet-121 at 255 px, its first 276 layers frozen and trained from layer 277 on; batch 32; learning rate
#     0.001, times 0.9 every 100 steps; a threshold on probabilities
# Filled in: average pooling before the sigmoid layer, Adam, the threshold (0.3), the number of epochs (at most 10,
#     ended by the F1 of held-out images)
BACKBONE := densenet121
SIZE     := 255
LAYER    := 276
POOLING  := none
HEAD     := tail
SET      := epochs=10 batch_size=32 learning_rate=0.001 decay=0.9 decay_steps=100
DECODER  := fixed:0.3
