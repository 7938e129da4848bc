#include "squares.h"

MIPP_DEFINE_SQUARES(16, squares_deal_u16_portable, squares_share_u16_portable)
MIPP_DEFINE_SQUARES(32, squares_deal_u32_portable, squares_share_u32_portable)
MIPP_DEFINE_SQUARES(64, squares_deal_u64_portable, squares_share_u64_portable)
