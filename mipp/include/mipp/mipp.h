/* The kernels of mipp for native code: a versioned table of functions, taken from the running Python module.
 *
 * Nothing is linked. Compile with the folder that mipp.get_include() names; include Python.h first to have
 * mipp_import():
 *
 *     #include <Python.h>
 *     #include <mipp/mipp.h>
 *
 *     const mipp_api *mipp = mipp_import();     once, with the GIL; NULL: a Python exception is set
 *     int status = mipp->ring_matmul(32, rows, n, dim, columns, b, out, n, 0);
 *     if (status != MIPP_OK) PyErr_SetString(PyExc_RuntimeError, mipp->status_text(status));
 *
 * C99 and C++11 or later.
 *
 * Versions. `version` changes when something is no longer as it was; entries are only ever appended, and `size` tells
 * how many there are. mipp_import() refuses a module of another version, or one whose table is smaller than this
 * header's.
 *
 * Calls. No function touches Python: call with or without the GIL (without is better, they take long), from any thread,
 * several at once. Two calls at once must not write the same memory, nor one write what the other reads. Work is shared
 * by the threads of one pool in the process; `threads` is the most that a call uses, its caller among them: 0 for the
 * default (MIPP_NUM_THREADS, or the processors), else 1 to 1024. After fork() the child's calls work.
 *
 * Memory. The caller owns all of it but schedules; nothing is kept after a call returns. Pointers may be NULL where
 * there is nothing behind them. Words are unsigned, of `bits` 16, 32 or 64, in native order, aligned to their size;
 * arrays are dense, row after row, but where a stride is given. Outputs overlap neither inputs nor one another: that is
 * not checked.
 *
 * Arithmetic. All sums and products wrap modulo 2^bits: there are no other bounds on values.
 *
 * Errors. Functions return a status. After MIPP_BAD_ARGUMENT nothing was written; after the others outputs are
 * undefined.
 *
 * Secrets. Keys, keystream, rows, columns and answers may be secret: time and addresses do not depend on their values,
 * except in functions whose names end in _var. Scratch copies of keys and keystream are wiped; what is in the caller's
 * memory is the caller's to wipe. A word of keystream must mask one value, once: the functions cannot check that. */
#ifndef MIPP_MIPP_H
#define MIPP_MIPP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MIPP_API_VERSION 1
#define MIPP_API_CAPSULE "mipp._native._core._C_API"

/* What a call answers. */
enum {
    MIPP_OK = 0,
    MIPP_NO_MEMORY = 1,
    MIPP_BAD_ARGUMENT = 2, /* a size, number or pointer that breaks the contract; nothing was written */
    MIPP_UNSUPPORTED = 3,  /* a processor level above this machine's; also while MIPP_CPU is set to none that it has */
    MIPP_INTERRUPTED = 4,  /* not answered by these functions */
    MIPP_NO_THREADS = 5    /* the operating system gave no thread */
};

/* Processor levels; each kernel takes its best tier at or below the level in force. */
enum { MIPP_CPU_PORTABLE = 0, MIPP_CPU_AVX2 = 1, MIPP_CPU_AVX512 = 2, MIPP_CPU_AMX = 3 };

/* Longest info in bytes; most outputs or answers, and most inputs, of a linear map. */
enum { MIPP_MAX_INFO_BYTES = 256, MIPP_MOST_OUTS = 8, MIPP_MOST_INPUTS = 4 };

/* AES-256 key schedules of many keystreams: secret, wiped when freed. Read by any number of calls at once. */
typedef struct mipp_schedules mipp_schedules;

/* `rows` consecutive rows of keystream number `schedule`, from row first_row on. */
typedef struct mipp_run {
    size_t schedule, first_row, rows;
} mipp_run;

typedef struct mipp_api {
    uint32_t version;  /* MIPP_API_VERSION of the module */
    uint32_t reserved; /* 0 */
    size_t size;       /* bytes of the module's table */

    /* A short English text; never NULL, and not to be freed. */
    const char* (*status_text)(int status);

    /* Level in force, and the best here. Setting it holds for the process; MIPP_UNSUPPORTED above the best. */
    int (*cpu_level)(void);
    int (*cpu_best_level)(void);
    int (*cpu_set_level)(int level);
    /* "portable", "avx2", ..; NULL if there is no such level. */
    const char* (*cpu_level_name)(int level);
    /* Level of the tier that kernels of "ring", "prf" or "galois" have now; -1 for another name. */
    int (*cpu_active)(const char* family);

    /* out[b, r] = sum over d of rows[r, d] * columns[b, d]. rows: row_count x dim, dim >= 1; columns: column_count x
     * dim; out: column_count x row_count, its rows out_stride >= row_count words apart. Fastest with out at 64 bytes
     * and out_stride whole cache lines. */
    int (*ring_matmul)(int bits, const void* rows, size_t row_count, size_t dim, const void* columns,
                       size_t column_count, void* out, size_t out_stride, int threads);

    /* out (count x 32 bytes) = HKDF-SHA256(key, no salt, infos[i], 32 bytes). key: 32 bytes; infos: count x length
     * bytes, length at most MIPP_MAX_INFO_BYTES. */
    int (*hkdf_expand)(const uint8_t* key, const uint8_t* infos, size_t length, size_t count, uint8_t* out,
                       int threads);

    /* Schedules of the `count` AES-256 keys that hkdf_expand would give; *out is NULL unless MIPP_OK. Free them once,
     * when no call uses them; freeing NULL does nothing. */
    int (*schedules_new)(const uint8_t* key, const uint8_t* infos, size_t length, size_t count, int threads,
                         mipp_schedules** out);
    void (*schedules_free)(mipp_schedules* schedules);
    size_t (*schedules_count)(const mipp_schedules* schedules);

    /* out = `words` words of keystream number `schedule`, from 16-byte block first_block on. Block b is AES-256 of b as
     * a big-endian 128-bit number; words are read from it in little-endian order. A keystream has 2^32 blocks. */
    int (*keystream_words)(const mipp_schedules* schedules, size_t schedule, uint64_t first_block, int bits, void* out,
                           size_t words);

    /* ring_matmul with rows of keystream, made in registers and never stored: row r of keystream s is its words from
     * r * dim on. dim * bits is a multiple of 128. The rows are those of all runs in order; out is column_count x their
     * number. */
    int (*keystream_matmul)(const mipp_schedules* schedules, const mipp_run* runs, size_t run_count, int bits,
                            const void* columns, size_t column_count, size_t dim, void* out, size_t out_stride,
                            int threads);

    /* Adds to (negate: subtracts from) segment s of row b of out the first lengths[s] words of the keystream under
     * HKDF(key, infos[b * segments + s]); in segment 0 those from word first_word on. out: queries rows, out_stride
     * words apart, each all segments one after another; infos: (queries * segments) x info_length bytes. */
    int (*zero_share_add)(int bits, void* out, size_t queries, size_t out_stride, const uint8_t* key,
                          const uint8_t* infos, size_t info_length, const size_t* lengths, size_t segments,
                          size_t first_word, int negate, int threads);

    /* outs[i][m j + b] = sum over a, c of matrices[i, a, b, c] * inputs[a][m j + c], m 2 or 3; `words` words each, a
     * multiple of m. matrices: out_count x input_count x m x m words, public. Shares of queries, and opening of shares.
     */
    int (*combine)(int bits, const void* matrices, size_t out_count, size_t input_count, int m,
                   const void* const* inputs, void* const* outs, size_t words, int threads);

    /* The same for rows and keystreams at once: input 0 is the rows (row_count x dim, padded by zeros to `width`
     * words), input 1 + a keystream number schedule[a] of schedules[a], of which row r is at row first_row + r. outs:
     * out_count arrays, row_count x width. matrices: out_count x (1 + schedule_count) x m x m. width: whole blocks of
     * 16 bytes, a multiple of m. */
    int (*share_rows)(int bits, const void* matrices, size_t out_count, int m, const void* rows, size_t row_count,
                      size_t dim, size_t width, const mipp_schedules* const* schedules, const size_t* schedule,
                      size_t schedule_count, uint64_t first_row, void* const* outs, int threads);

    /* out[i] = the sum of the `count` answers at i modulo 2^bits, read as signed. */
    int (*answers_add)(int bits, const void* const* answers, size_t count, size_t n, int64_t* out, int threads);

    /* The k largest sums of each query, best first, ties by smaller row. answers: count arrays queries x n, for rows
     * first_row to first_row + n. rows, scores: queries x k; on entry the first min(k, first_row) of each row are the
     * best of the rows before, on return the first min(k, first_row + n) are the best of all. k >= 1. Time depends on
     * the scores. */
    int (*answers_top_k_var)(int bits, const void* const* answers, size_t count, size_t queries, size_t n, size_t k,
                             size_t first_row, int64_t* rows, int64_t* scores, int threads);
} mipp_api;

#ifdef Py_PYTHON_H
/* The table of the mipp that this interpreter imports; NULL with an exception set if there is none that fits. Needs the
 * GIL. The table lives as long as the process. */
static inline const mipp_api* mipp_import(void) {
    const mipp_api* api = (const mipp_api*)PyCapsule_Import(MIPP_API_CAPSULE, 0);
    if (api == NULL) return NULL;
    if (api->version != MIPP_API_VERSION || api->size < sizeof(mipp_api)) {
        PyErr_Format(PyExc_ImportError,
                     "mipp has C API version %u of %zu bytes; this module needs version %d of at least %zu bytes",
                     (unsigned)api->version, api->size, MIPP_API_VERSION, sizeof(mipp_api));
        return NULL;
    }
    return api;
}
#endif

#ifdef __cplusplus
}
#endif

#endif
