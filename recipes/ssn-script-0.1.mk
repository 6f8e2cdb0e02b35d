# Whose: SSNMLRGKSR, the script that the team published, threshold 0.1
# Published: - -
# Source: the team's public repository
# Known: as ssn-script, with threshold 0.1
# Filled in: as ssn-script
include recipes/ssn-script.mk
DECODER := fixed:0.1
