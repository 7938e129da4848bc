// What takes the stream of a key: gates, masks, passes of the shuffle.
#include "ctr_ni.h"
#include "gates.h"
#include "gather.h"

MIPP_DEFINE_GATES(gates_and_u64_avx2, words_mask_u64_avx2)
MIPP_DEFINE_GATHER(words_gather_u64_avx2)
