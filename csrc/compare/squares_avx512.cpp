#include "squares.h"

MIPP_DEFINE_SQUARES(16, squares_deal_u16_avx512, squares_share_u16_avx512)
MIPP_DEFINE_SQUARES(32, squares_deal_u32_avx512, squares_share_u32_avx512)
MIPP_DEFINE_SQUARES(64, squares_deal_u64_avx512, squares_share_u64_avx512)
