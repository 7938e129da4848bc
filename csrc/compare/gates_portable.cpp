// What takes the stream of a key: gates, masks, passes of the shuffle.
#include "ctr_bitsliced.h"
#include "gates.h"
#include "gather.h"

MIPP_DEFINE_GATES(gates_and_u64_portable, words_mask_u64_portable)
MIPP_DEFINE_GATHER(words_gather_u64_portable)
