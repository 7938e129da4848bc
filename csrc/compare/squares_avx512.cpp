#include "squares.h"

void squares_deal_u16_avx512(const MippSquaresDeal* work) { squares_deal<uint16_t>(*work); }
void squares_share_u16_avx512(const MippSquaresShare* work) { squares_share<uint16_t>(*work); }

void squares_deal_u32_avx512(const MippSquaresDeal* work) { squares_deal<uint32_t>(*work); }
void squares_share_u32_avx512(const MippSquaresShare* work) { squares_share<uint32_t>(*work); }

void squares_deal_u64_avx512(const MippSquaresDeal* work) { squares_deal<uint64_t>(*work); }
void squares_share_u64_avx512(const MippSquaresShare* work) { squares_share<uint64_t>(*work); }
