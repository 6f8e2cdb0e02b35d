# Whose: SSNMLRGKSR, the script that the team published, threshold 0.4
# Published: - -
# Source: the team's public repository
# Known: DenseNet-121 at 224 px; 512 ReLU units before the sigmoid layer; Adam at 1e-4 for at most 50 epochs with early
#     stopping, then trained from conv5_block1_0_bn on at 1e-5; thresholds 0.1 and 0.4
# Filled in: epochs of the second part (10), early stopping by the F1 of held-out images
BACKBONE := densenet121
SIZE     := 224
LAYER    := pool4_pool
POOLING  := none
HEAD     := tail
SET      := hidden=512 warm_epochs=50 warm_learning_rate=0.0001 epochs=10 learning_rate=0.00001 decay=1.0
DECODER  := fixed:0.4
