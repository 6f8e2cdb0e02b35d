# Whose: auebnlpgroup, ImageCLEFmedical Caption 2024, the network
# Published: 0.631 0.939
# Source: the team's working notes at CLEF 2024; the scores are those of its best run, second in the table
# Known: DenseNet-121 or EfficientNet at 224 px, generalised-mean pooling, one sigmoid layer, binary cross-entropy, Adam
#     at 1e-4, one threshold for all concepts, swept
# Filled in: DenseNet-121, frozen, where the team trained all of it; the threshold is swept on folds of train
BACKBONE := densenet121
SIZE     := 224
POOLING  := gem
HEAD     := dense
SET      := learning_rate=0.0001 decay=1.0
DECODER  := global
