/* What counting.py does, in one pass over the text each; see there for the arguments. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define MOST_CLASSES 32
#define FACTOR 0x9E3779B1u /* of neighbours.py */

static PyObject *count_pairs(PyObject *module, PyObject *const *args, Py_ssize_t number)
{
    /* In turn, so that an addition need not wait for the one before. */
    uint32_t found[2][MOST_CLASSES * MOST_CLASSES];
    Py_buffer counts;
    if (number != 3 || !PyBytes_Check(args[0]) || !PyBytes_Check(args[1])
        || PyBytes_GET_SIZE(args[1]) != 256) {
        PyErr_SetString(PyExc_TypeError, "count_pairs takes a text, 256 classes and counts");
        return NULL;
    }
    const uint8_t *text = (const uint8_t *)PyBytes_AS_STRING(args[0]);
    const uint8_t *classes = (const uint8_t *)PyBytes_AS_STRING(args[1]);
    const Py_ssize_t length = PyBytes_GET_SIZE(args[0]);
    if (PyObject_GetBuffer(args[2], &counts, PyBUF_CONTIG | PyBUF_FORMAT) < 0)
        return NULL;
    const Py_ssize_t size = counts.ndim == 2 ? counts.shape[0] : 0;
    if (strcmp(counts.format, "d") || size < 1 || size > MOST_CLASSES || counts.shape[1] != size
        || classes['\n'] >= size) {
        PyBuffer_Release(&counts);
        PyErr_SetString(PyExc_ValueError, "counts are no square of floats for these classes");
        return NULL;
    }
    for (int turn = 0; turn < 2; turn++)
        memset(found[turn], 0, size * size * sizeof found[turn][0]);
    Py_ssize_t before = classes['\n'] * size;
    for (Py_ssize_t at = 0; at < length; at++) {
        const Py_ssize_t class = classes[text[at]];
        if (class < size) {
            found[at & 1][before + class]++;
            before = class * size;
        }
    }
    for (Py_ssize_t pair = 0; pair < size * size; pair++)
        ((double *)counts.buf)[pair] = (double)found[0][pair] + found[1][pair];
    PyBuffer_Release(&counts);
    Py_RETURN_NONE;
}

static PyObject *sum_hashed(PyObject *module, PyObject *const *args, Py_ssize_t number)
{
    uint64_t started = 0, doubted = 0;
    int bits = 0;
    if (number != 3 || !PyBytes_Check(args[0]) || !PyBytes_Check(args[1]) || !PyBytes_Check(args[2])
        || PyBytes_GET_SIZE(args[2]) != 256) {
        PyErr_SetString(PyExc_TypeError, "sum_hashed takes a text, starts and 256 doubts");
        return NULL;
    }
    const uint8_t *text = (const uint8_t *)PyBytes_AS_STRING(args[0]);
    const uint8_t *starts = (const uint8_t *)PyBytes_AS_STRING(args[1]);
    const uint8_t *doubts = (const uint8_t *)PyBytes_AS_STRING(args[2]);
    const Py_ssize_t length = PyBytes_GET_SIZE(args[0]);
    while (bits < 24 && (Py_ssize_t)2 << bits <= PyBytes_GET_SIZE(args[1]))
        bits++;
    if (bits < 1 || (Py_ssize_t)1 << bits != PyBytes_GET_SIZE(args[1])) {
        PyErr_SetString(PyExc_ValueError, "the length of starts is no power of two");
        return NULL;
    }
    /* A byte of the text ends in a zero, so that the byte behind the last one may be read. */
    uint32_t around = (uint32_t)'\n' << 8 | (uint32_t)text[0] << 16;
    for (Py_ssize_t at = 0; at < length; at++) {
        const uint8_t next = at + 1 < length ? text[at + 1] : '\n';
        around = around >> 8 | (uint32_t)next << 16;
        const uint8_t start = starts[((around << 8) * FACTOR) >> (32 - bits)];
        started += start;
        doubted += doubts[start];
    }
    return Py_BuildValue("KK", (unsigned long long)started, (unsigned long long)doubted);
}

static PyMethodDef methods[] = {
    {"count_pairs", (PyCFunction)(void (*)(void))count_pairs, METH_FASTCALL, NULL},
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
