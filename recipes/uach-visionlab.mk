# Whose: UACH-VisionLab, ImageCLEFmedical Caption 2024
# Published: 0.598 0.936
# Source: the team's working notes at CLEF 2024; the organisers' table of results
# Known: EfficientNet-B0 at 224 px, threshold 0.5; one general network and four specialists (ultrasound, cranium,
#     angiogram, lower extremity), whose outputs are joined by OR
# Filled in: the network is frozen; a specialist learns its one concept, and may name none
MEMBERS  := general ultrasound cranium angiogram lower-extremity
HOW      := union
BACKBONE := efficientnetb0
SIZE     := 224
POOLING  := avg
HEAD     := dense
SET      := learning_rate=0.001 decay=1.0
DECODER   = $(if $(CONCEPTS),fixed:0.5$(comma)empty,fixed:0.5)
CONCEPTS  = $(specialist.$(MEMBER))

comma                      := ,
specialist.ultrasound      := C0041618
specialist.cranium         := C0037303
specialist.angiogram       := C0002978
specialist.lower-extremity := C0023216
