# Whose: SSNMLRGKSR, ImageCLEFmedical Caption 2024, run 422 (Model2, threshold 0.3)
# Published: 0.600 0.905
# Source: the team's working notes at CLEF 2024; the organisers' table of results
# Known: frozen DenseNet-121, sigmoid outputs, threshold 0.3
# Filled in: 224 px, average pooling, and Model1's schedule: batch 32, learning rate 0.001, times 0.9 every 100 steps
BACKBONE := densenet121
SIZE     := 224
POOLING  := avg
HEAD     := dense
SET      := batch_size=32 learning_rate=0.001 decay=0.9 decay_steps=100
DECODER  := fixed:0.3
