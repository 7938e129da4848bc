#define MIPP_VECTOR_BYTES 16
#include "answers.h"

MIPP_DEFINE_ANSWERS(16, answers_add_u16_portable, answers_filter_var_u16_portable, answers_pack_u16_portable,
                    answers_fold_u16_portable)
MIPP_DEFINE_ANSWERS(32, answers_add_u32_portable, answers_filter_var_u32_portable, answers_pack_u32_portable,
                    answers_fold_u32_portable)
MIPP_DEFINE_ANSWERS(64, answers_add_u64_portable, answers_filter_var_u64_portable, answers_pack_u64_portable,
                    answers_fold_u64_portable)
