/* A module of someone else's that calls the kernels of mipp through its C API. Pointers come in as addresses. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <mipp/mipp.h>

static const mipp_api* mipp;

#define AT(address) ((void*)(uintptr_t)(address))

static PyObject* answer(int status) { return PyLong_FromLong(status); }

static PyObject* load(PyObject* self, PyObject* args) {
    const mipp_api* found;
    (void)self;
    if (!PyArg_ParseTuple(args, "")) return NULL;
    found = mipp_import();
    if (found == NULL) return NULL;
    mipp = found;
    return Py_BuildValue("Inn", (unsigned)mipp->version, (Py_ssize_t)mipp->size, (Py_ssize_t)sizeof(mipp_api));
}

/* A capsule with a table that says it has this version and size. */
static PyObject* fake(PyObject* self, PyObject* args) {
    static mipp_api table;
    unsigned version;
    Py_ssize_t size;
    (void)self;
    if (!PyArg_ParseTuple(args, "In", &version, &size)) return NULL;
    table.version = version;
    table.size = (size_t)size;
    return PyCapsule_New(&table, MIPP_API_CAPSULE, NULL);
}

static PyObject* status_text(PyObject* self, PyObject* args) {
    int status;
    (void)self;
    if (!PyArg_ParseTuple(args, "i", &status)) return NULL;
    return PyUnicode_FromString(mipp->status_text(status));
}

static PyObject* levels(PyObject* self, PyObject* args) {
    (void)self;
    if (!PyArg_ParseTuple(args, "")) return NULL;
    return Py_BuildValue("ii", mipp->cpu_level(), mipp->cpu_best_level());
}

static PyObject* set_level(PyObject* self, PyObject* args) {
    int level;
    (void)self;
    if (!PyArg_ParseTuple(args, "i", &level)) return NULL;
    return answer(mipp->cpu_set_level(level));
}

static PyObject* level_name(PyObject* self, PyObject* args) {
    int level;
    const char* name;
    (void)self;
    if (!PyArg_ParseTuple(args, "i", &level)) return NULL;
    name = mipp->cpu_level_name(level);
    return Py_BuildValue("z", name);
}

static PyObject* active(PyObject* self, PyObject* args) {
    const char* family;
    (void)self;
    if (!PyArg_ParseTuple(args, "z", &family)) return NULL;
    return answer(mipp->cpu_active(family));
}

static PyObject* ring_matmul(PyObject* self, PyObject* args) {
    int bits, threads, status;
    unsigned long long rows, columns, out;
    Py_ssize_t n, dim, b, stride;
    (void)self;
    if (!PyArg_ParseTuple(args, "iKnnKnKni", &bits, &rows, &n, &dim, &columns, &b, &out, &stride, &threads))
        return NULL;
    Py_BEGIN_ALLOW_THREADS status = mipp->ring_matmul(bits, AT(rows), (size_t)n, (size_t)dim, AT(columns), (size_t)b,
                                                      AT(out), (size_t)stride, threads);
    Py_END_ALLOW_THREADS return answer(status);
}

static PyObject* hkdf_expand(PyObject* self, PyObject* args) {
    int threads, status;
    unsigned long long key, infos, out;
    Py_ssize_t length, count;
    (void)self;
    if (!PyArg_ParseTuple(args, "KKnnKi", &key, &infos, &length, &count, &out, &threads)) return NULL;
    Py_BEGIN_ALLOW_THREADS status = mipp->hkdf_expand((const uint8_t*)AT(key), (const uint8_t*)AT(infos),
                                                      (size_t)length, (size_t)count, (uint8_t*)AT(out), threads);
    Py_END_ALLOW_THREADS return answer(status);
}

static PyObject* schedules_new(PyObject* self, PyObject* args) {
    int threads, status;
    unsigned long long key, infos;
    Py_ssize_t length, count;
    mipp_schedules* made = NULL;
    (void)self;
    if (!PyArg_ParseTuple(args, "KKnni", &key, &infos, &length, &count, &threads)) return NULL;
    Py_BEGIN_ALLOW_THREADS status = mipp->schedules_new((const uint8_t*)AT(key), (const uint8_t*)AT(infos),
                                                        (size_t)length, (size_t)count, threads, &made);
    Py_END_ALLOW_THREADS return Py_BuildValue("iK", status, (unsigned long long)(uintptr_t)made);
}

static PyObject* schedules_free(PyObject* self, PyObject* args) {
    unsigned long long schedules;
    (void)self;
    if (!PyArg_ParseTuple(args, "K", &schedules)) return NULL;
    mipp->schedules_free((mipp_schedules*)AT(schedules));
    Py_RETURN_NONE;
}

static PyObject* schedules_count(PyObject* self, PyObject* args) {
    unsigned long long schedules;
    (void)self;
    if (!PyArg_ParseTuple(args, "K", &schedules)) return NULL;
    return PyLong_FromSize_t(mipp->schedules_count((const mipp_schedules*)AT(schedules)));
}

static PyObject* keystream_words(PyObject* self, PyObject* args) {
    int bits, status;
    unsigned long long schedules, first, out;
    Py_ssize_t schedule, words;
    (void)self;
    if (!PyArg_ParseTuple(args, "KnKiKn", &schedules, &schedule, &first, &bits, &out, &words)) return NULL;
    Py_BEGIN_ALLOW_THREADS status = mipp->keystream_words((const mipp_schedules*)AT(schedules), (size_t)schedule, first,
                                                          bits, AT(out), (size_t)words);
    Py_END_ALLOW_THREADS return answer(status);
}

static PyObject* keystream_matmul(PyObject* self, PyObject* args) {
    int bits, threads, status;
    unsigned long long schedules, runs, columns, out;
    Py_ssize_t run_count, b, dim, stride;
    (void)self;
    if (!PyArg_ParseTuple(args, "KKniKnnKni", &schedules, &runs, &run_count, &bits, &columns, &b, &dim, &out, &stride,
                          &threads))
        return NULL;
    Py_BEGIN_ALLOW_THREADS status =
        mipp->keystream_matmul((const mipp_schedules*)AT(schedules), (const mipp_run*)AT(runs), (size_t)run_count, bits,
                               AT(columns), (size_t)b, (size_t)dim, AT(out), (size_t)stride, threads);
    Py_END_ALLOW_THREADS return answer(status);
}

static PyObject* zero_share_add(PyObject* self, PyObject* args) {
    int bits, negate, threads, status;
    unsigned long long out, key, infos, lengths;
    Py_ssize_t queries, stride, length, segments, first;
    (void)self;
    if (!PyArg_ParseTuple(args, "iKnnKKnKnnii", &bits, &out, &queries, &stride, &key, &infos, &length, &lengths,
                          &segments, &first, &negate, &threads))
        return NULL;
    Py_BEGIN_ALLOW_THREADS status = mipp->zero_share_add(
        bits, AT(out), (size_t)queries, (size_t)stride, (const uint8_t*)AT(key), (const uint8_t*)AT(infos),
        (size_t)length, (const size_t*)AT(lengths), (size_t)segments, (size_t)first, negate, threads);
    Py_END_ALLOW_THREADS return answer(status);
}

static PyObject* combine(PyObject* self, PyObject* args) {
    int bits, m, threads, status;
    unsigned long long matrices, inputs, outs;
    Py_ssize_t out_count, input_count, words;
    (void)self;
    if (!PyArg_ParseTuple(args, "iKnniKKni", &bits, &matrices, &out_count, &input_count, &m, &inputs, &outs, &words,
                          &threads))
        return NULL;
    Py_BEGIN_ALLOW_THREADS status =
        mipp->combine(bits, AT(matrices), (size_t)out_count, (size_t)input_count, m, (const void* const*)AT(inputs),
                      (void* const*)AT(outs), (size_t)words, threads);
    Py_END_ALLOW_THREADS return answer(status);
}

static PyObject* share_rows(PyObject* self, PyObject* args) {
    int bits, m, threads, status;
    unsigned long long matrices, rows, schedules, schedule, first, outs;
    Py_ssize_t out_count, n, dim, width, count;
    (void)self;
    if (!PyArg_ParseTuple(args, "iKniKnnnKKnKKi", &bits, &matrices, &out_count, &m, &rows, &n, &dim, &width, &schedules,
                          &schedule, &count, &first, &outs, &threads))
        return NULL;
    Py_BEGIN_ALLOW_THREADS status =
        mipp->share_rows(bits, AT(matrices), (size_t)out_count, m, AT(rows), (size_t)n, (size_t)dim, (size_t)width,
                         (const mipp_schedules* const*)AT(schedules), (const size_t*)AT(schedule), (size_t)count, first,
                         (void* const*)AT(outs), threads);
    Py_END_ALLOW_THREADS return answer(status);
}

static PyObject* answers_add(PyObject* self, PyObject* args) {
    int bits, threads, status;
    unsigned long long answers, out;
    Py_ssize_t count, n;
    (void)self;
    if (!PyArg_ParseTuple(args, "iKnnKi", &bits, &answers, &count, &n, &out, &threads)) return NULL;
    Py_BEGIN_ALLOW_THREADS status =
        mipp->answers_add(bits, (const void* const*)AT(answers), (size_t)count, (size_t)n, (int64_t*)AT(out), threads);
    Py_END_ALLOW_THREADS return answer(status);
}

static PyObject* answers_top_k_var(PyObject* self, PyObject* args) {
    int bits, threads, status;
    unsigned long long answers, rows, scores;
    Py_ssize_t count, queries, n, k, first;
    (void)self;
    if (!PyArg_ParseTuple(args, "iKnnnnnKKi", &bits, &answers, &count, &queries, &n, &k, &first, &rows, &scores,
                          &threads))
        return NULL;
    Py_BEGIN_ALLOW_THREADS status =
        mipp->answers_top_k_var(bits, (const void* const*)AT(answers), (size_t)count, (size_t)queries, (size_t)n,
                                (size_t)k, (size_t)first, (int64_t*)AT(rows), (int64_t*)AT(scores), threads);
    Py_END_ALLOW_THREADS return answer(status);
}

#define ENTRY(name) {#name, name, METH_VARARGS, NULL}

static PyMethodDef methods[] = {ENTRY(load),
                                ENTRY(fake),
                                ENTRY(status_text),
                                ENTRY(levels),
                                ENTRY(set_level),
                                ENTRY(level_name),
                                ENTRY(active),
                                ENTRY(ring_matmul),
                                ENTRY(hkdf_expand),
                                ENTRY(schedules_new),
                                ENTRY(schedules_free),
                                ENTRY(schedules_count),
                                ENTRY(keystream_words),
                                ENTRY(keystream_matmul),
                                ENTRY(zero_share_add),
                                ENTRY(combine),
                                ENTRY(share_rows),
                                ENTRY(answers_add),
                                ENTRY(answers_top_k_var),
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "c_api_user", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_c_api_user(void) { return PyModule_Create(&definition); }
