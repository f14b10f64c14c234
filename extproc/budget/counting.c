/* What counting.py does, in one pass over the text each; see there for the arguments. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define MOST_CLASSES 32
#define STRIDE_BITS 5
#define MOST_SUMS 64
#define FACTOR 0x9E3779B1u /* of neighbours.py */

/* Each pair counts in one of two places in turn: an addition need not wait for the one before. */
typedef uint32_t Pairs[2][MOST_CLASSES << STRIDE_BITS];

static inline uint32_t count_class(uint32_t *found, uint32_t before, uint32_t class, uint32_t size)
{
    if (class >= size)
        return before;
    found[before + class]++;
    return class << STRIDE_BITS;
}

static void count_all(
    Pairs found, const uint8_t *text, Py_ssize_t length, const uint8_t *classes, uint32_t size)
{
    uint32_t before = (uint32_t)classes['\n'] << STRIDE_BITS;
    Py_ssize_t at = 0;
    for (int turn = 0; turn < 2; turn++)
        memset(found[turn], 0, (size << STRIDE_BITS) * sizeof found[turn][0]);
    for (; at + 1 < length; at += 2) {
        before = count_class(found[0], before, classes[text[at]], size);
        before = count_class(found[1], before, classes[text[at + 1]], size);
    }
    if (at < length)
        count_class(found[0], before, classes[text[at]], size);
}

static int is_row(const Py_buffer *sums)
{
    return sums->ndim == 1 && !strcmp(sums->format, "d") && sums->shape[0] <= MOST_SUMS;
}

static PyObject *sum_pairs(PyObject *module, PyObject *const *args, Py_ssize_t number)
{
    Pairs found;
    Py_buffer sums;
    uint32_t size = 1;
    if (number != 4 || !PyBytes_Check(args[0]) || !PyBytes_Check(args[1])
        || PyBytes_GET_SIZE(args[1]) != 256 || !PyBytes_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "sum_pairs takes a text, 256 classes, places and sums");
        return NULL;
    }
    const uint8_t *classes = (const uint8_t *)PyBytes_AS_STRING(args[1]);
    const uint64_t *places = (const uint64_t *)PyBytes_AS_STRING(args[2]);
    while (size < MOST_CLASSES && size * size * sizeof *places < (size_t)PyBytes_GET_SIZE(args[2]))
        size++;
    if (size * size * sizeof *places != (size_t)PyBytes_GET_SIZE(args[2])
        || classes['\n'] >= size) {
        PyErr_SetString(PyExc_ValueError, "no square of places for these classes");
        return NULL;
    }
    if (PyObject_GetBuffer(args[3], &sums, PyBUF_CONTIG | PyBUF_FORMAT) < 0)
        return NULL;
    if (!is_row(&sums)) {
        PyBuffer_Release(&sums);
        PyErr_SetString(PyExc_ValueError, "sums are no row of at most 64 floats");
        return NULL;
    }
    const uint64_t known = sums.shape[0] < MOST_SUMS ? ((uint64_t)1 << sums.shape[0]) - 1 : ~(uint64_t)0;
    double *sum = sums.buf;
    count_all(found, (const uint8_t *)PyBytes_AS_STRING(args[0]), PyBytes_GET_SIZE(args[0]), classes, size);
    memset(sum, 0, sums.len);
    for (uint32_t first = 0; first < size; first++)
        for (uint32_t second = 0; second < size; second++, places++) {
            const uint32_t pair = first << STRIDE_BITS | second;
            const double count = (double)found[0][pair] + found[1][pair];
            if (count)
                for (uint64_t left = *places & known; left; left &= left - 1)
                    sum[__builtin_ctzll(left)] += count;
        }
    PyBuffer_Release(&sums);
    Py_RETURN_NONE;
}

typedef struct {
    const uint8_t *starts, *doubts;
    int bits;
    uint64_t started, doubted;
} Sums;

/* `around` is a byte of the text between its neighbours, the first of them lowest; a fourth byte
   does not matter. */
static inline void add(Sums *sums, uint32_t around)
{
    const uint32_t start = sums->starts[(around << 8) * FACTOR >> (32 - sums->bits)];
    sums->started += start;
    sums->doubted += sums->doubts[start];
}

static inline void add_edge(Sums *sums, const uint8_t *text, Py_ssize_t length, Py_ssize_t at)
{
    const uint32_t before = at > 0 ? text[at - 1] : '\n';
    const uint32_t after = at + 1 < length ? text[at + 1] : '\n';
    add(sums, before | (uint32_t)text[at] << 8 | after << 16);
}

static void add_all(Sums *sums, const uint8_t *text, Py_ssize_t length)
{
    Py_ssize_t at = 1;
    if (length > 0)
        add_edge(sums, text, length, 0);
    for (; at + 2 < length; at++) { /* one read of four bytes */
        const uint8_t *from = text + at - 1;
        add(sums, from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24);
    }
    for (; at < length; at++)
        add_edge(sums, text, length, at);
}

static PyObject *sum_hashed(PyObject *module, PyObject *const *args, Py_ssize_t number)
{
    Sums sums = {0};
    if (number != 3 || !PyBytes_Check(args[0]) || !PyBytes_Check(args[1]) || !PyBytes_Check(args[2])
        || PyBytes_GET_SIZE(args[2]) != 256) {
        PyErr_SetString(PyExc_TypeError, "sum_hashed takes a text, starts and 256 doubts");
        return NULL;
    }
    sums.starts = (const uint8_t *)PyBytes_AS_STRING(args[1]);
    sums.doubts = (const uint8_t *)PyBytes_AS_STRING(args[2]);
    while (sums.bits < 24 && (Py_ssize_t)2 << sums.bits <= PyBytes_GET_SIZE(args[1]))
        sums.bits++;
    if (sums.bits < 1 || (Py_ssize_t)1 << sums.bits != PyBytes_GET_SIZE(args[1])) {
        PyErr_SetString(PyExc_ValueError, "the length of starts is no power of two");
        return NULL;
    }
    add_all(&sums, (const uint8_t *)PyBytes_AS_STRING(args[0]), PyBytes_GET_SIZE(args[0]));
    return Py_BuildValue("KK", (unsigned long long)sums.started, (unsigned long long)sums.doubted);
}

static PyMethodDef methods[] = {
    {"sum_pairs", (PyCFunction)(void (*)(void))sum_pairs, METH_FASTCALL, NULL},
    {"sum_hashed", (PyCFunction)(void (*)(void))sum_hashed, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "counting", .m_size = 0, .m_methods = methods,
};

PyMODINIT_FUNC PyInit_counting(void)
{
    return PyModuleDef_Init(&definition);
}
