#include "partition.h"

MIPP_DEFINE_PARTITION(words_partition_u64_portable)
