# Whose: auebnlpgroup, ImageCLEFmedical Caption 2024, the intersection of network and neighbours
# Published: - -
# Source: the team's working notes at CLEF 2024
# Known: runs joined by intersection of their concepts
# Filled in: which runs: the network of auebnlp-2024 and the neighbours of auebnlp-2024-knn
include recipes/auebnlp-2024-union.mk
HOW := intersection
