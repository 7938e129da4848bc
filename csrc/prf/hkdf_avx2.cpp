#define MIPP_LANES 8
#include "sha256_lanes.h"

MIPP_DEFINE_HKDF_EXPAND(hkdf_expand_u8_avx2)
