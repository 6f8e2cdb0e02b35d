# Whose: auebnlpgroup, ImageCLEFmedical Caption 2024, the union of network and neighbours
# Published: - -
# Source: the team's working notes at CLEF 2024
# Known: runs joined by union of their concepts
# Filled in: which runs: the network of auebnlp-2024 and the neighbours of auebnlp-2024-knn
MEMBERS := network neighbours
HOW     := union
include recipes/auebnlp-2024$(if $(filter neighbours,$(MEMBER)),-knn).mk
