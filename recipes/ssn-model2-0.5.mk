# Whose: SSNMLRGKSR, ImageCLEFmedical Caption 2024, run 425 (Model2, threshold 0.5)
# Published: 0.600 0.905
# Source: the team's working notes at CLEF 2024; the organisers' table of results
# Known: as ssn-model2, with threshold 0.5
# Filled in: as ssn-model2
include recipes/ssn-model2.mk
DECODER := fixed:0.5
