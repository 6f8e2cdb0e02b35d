# Whose: auebnlpgroup, ImageCLEFmedical Caption 2024, neighbours
# Published: - -
# Source: the team's working notes at CLEF 2024
# Known: nearest neighbours over embeddings, by cosine, k = 33
# Filled in: embeddings of the frozen DenseNet-121 with generalised-mean pooling; votes become concepts by one threshold,
#     swept on folds of train
BACKBONE := densenet121
SIZE     := 224
POOLING  := gem
HEAD     := knn
SET      := k=33
DECODER  := global
