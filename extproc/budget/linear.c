/* What linear.py does; see there for the arguments. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <string.h>

#define MOST 128 /* numbers of a column */
#define ROUNDING 1e-9

typedef struct {
    double *at;
    Py_ssize_t length;
    Py_buffer buffer;
    double own[MOST];
} Row;

static int read_tuple(PyObject *from, Row *found)
{
    found->buffer.obj = NULL;
    found->at = found->own;
    found->length = PyTuple_GET_SIZE(from);
    if (found->length > MOST) {
        PyErr_SetString(PyExc_ValueError, "more than 128 numbers in a tuple");
        return 0;
    }
    for (Py_ssize_t at = 0; at < found->length; at++) {
        found->own[at] = PyFloat_AsDouble(PyTuple_GET_ITEM(from, at));
        if (found->own[at] == -1.0 && PyErr_Occurred())
            return 0;
    }
    return 1;
}

static int read_row(PyObject *from, Row *found, int flags)
{
    if (PyObject_GetBuffer(from, &found->buffer, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | flags) < 0)
        return 0;
    if (strcmp(found->buffer.format, "d")) {
        PyBuffer_Release(&found->buffer);
        PyErr_SetString(PyExc_ValueError, "a row of other numbers than doubles");
        return 0;
    }
    found->at = found->buffer.buf;
    found->length = found->buffer.len / (Py_ssize_t)sizeof(double);
    return 1;
}

static int read_column(PyObject *from, Row *found)
{
    return PyTuple_Check(from) ? read_tuple(from, found) : read_row(from, found, 0);
}

static void release(Row *found)
{
    PyBuffer_Release(&found->buffer); /* does nothing for a tuple */
}

static double multiply(const double *one, const double *other, Py_ssize_t length)
{
    double even = 0.0, odd = 0.0; /* an addition need not wait for the one before */
    Py_ssize_t at = 0;
    for (; at + 1 < length; at += 2) {
        even += one[at] * other[at];
        odd += one[at + 1] * other[at + 1];
    }
    return at < length ? even + odd + one[at] * other[at] : even + odd;
}

/* The covariance is symmetric: its rows are added up as if they were its columns, and most
   features of a prompt are none. */
static void find_gain(double *restrict gain, const double *restrict rows, const Row *column)
{
    const Py_ssize_t size = column->length;
    memset(gain, 0, size * sizeof *gain);
    for (Py_ssize_t place = 0; place < size; place++, rows += size) {
        const double times = column->at[place];
        if (times != 0.0)
            for (Py_ssize_t at = 0; at < size; at++)
                gain[at] += times * rows[at];
    }
}

static int fits(const Row *rows, const Row *column, Py_ssize_t further)
{
    const Py_ssize_t size = column->length;
    if (size > 0 && size <= MOST && rows->length % size == 0 && rows->length / size >= size + further)
        return 1;
    PyErr_SetString(PyExc_ValueError, "rows that do not fit the column");
    return 0;
}

/* Read two arguments, find something of both, and release them. */
static PyObject *of_two(
    PyObject *const *args, Py_ssize_t number, PyObject *(*find)(const Row *, const Row *))
{
    Row one, other;
    PyObject *found = NULL;
    if (number != 2) {
        PyErr_SetString(PyExc_TypeError, "two rows are needed");
        return NULL;
    }
    if (!read_column(args[0], &one))
        return NULL;
    if (read_column(args[1], &other)) {
        found = find(&one, &other);
        release(&other);
    }
    release(&one);
    return found;
}

static PyObject *find_product(const Row *one, const Row *other)
{
    if (one->length == other->length)
        return PyFloat_FromDouble(multiply(one->at, other->at, one->length));
    PyErr_SetString(PyExc_ValueError, "rows of two lengths");
    return NULL;
}

static PyObject *dot(PyObject *module, PyObject *const *args, Py_ssize_t number)
{
    return of_two(args, number, find_product);
}

static PyObject *project_rows(const Row *rows, const Row *column)
{
    double gain[MOST];
    if (!fits(rows, column, 0))
        return NULL;
    const Py_ssize_t size = column->length, further = rows->length / size - size;
    PyObject *found = PyTuple_New(1 + further);
    find_gain(gain, rows->at, column);
    for (Py_ssize_t place = 0; found != NULL && place <= further; place++) {
        const double *with = place ? rows->at + (size + place - 1) * size : gain;
        PyObject *value = PyFloat_FromDouble(multiply(with, column->at, size));
        if (value == NULL)
            Py_CLEAR(found);
        else
            PyTuple_SET_ITEM(found, place, value);
    }
    return found;
}

static PyObject *project(PyObject *module, PyObject *const *args, Py_ssize_t number)
{
    return of_two(args, number, project_rows);
}

static void learn_rows(
    const Row *rows, const Row *column, double step, double share, double walk, const double *spread)
{
    double gain[MOST];
    const Py_ssize_t size = column->length;
    double *covariance = rows->at, *weights = rows->at + size * size;
    find_gain(gain, covariance, column);
    for (Py_ssize_t at = 0; at < size; at++)
        weights[at] += gain[at] * step;
    for (Py_ssize_t place = 0; place < size; place++, covariance += size) {
        for (Py_ssize_t at = 0; at < size; at++)
            covariance[at] = (covariance[at] - gain[place] * gain[at] * share) * (1.0 - walk);
        covariance[place] += walk * spread[place];
    }
}

static PyObject *learn(PyObject *module, PyObject *const *args, Py_ssize_t number)
{
    Row rows, column, spread;
    double numbers[3];
    int learnt = 0;
    if (number != 6) {
        PyErr_SetString(PyExc_TypeError, "learn takes rows, a column, three numbers and a spread");
        return NULL;
    }
    for (int at = 0; at < 3; at++) {
        numbers[at] = PyFloat_AsDouble(args[2 + at]);
        if (numbers[at] == -1.0 && PyErr_Occurred())
            return NULL;
    }
    if (!read_row(args[0], &rows, PyBUF_WRITABLE))
        return NULL;
    if (read_column(args[1], &column)) {
        if (read_row(args[5], &spread, 0)) {
            learnt = fits(&rows, &column, 1);
            if (learnt && spread.length != column.length) {
                PyErr_SetString(PyExc_ValueError, "a spread of another length");
                learnt = 0;
            }
            if (learnt)
                learn_rows(&rows, &column, numbers[0], numbers[1], numbers[2], spread.at);
            release(&spread);
        }
        release(&column);
    }
    release(&rows);
    if (!learnt)
        return NULL;
    Py_RETURN_NONE;
}

/* Cholesky's decomposition, in place; 0 if there is none. */
static int decompose(double *rows, Py_ssize_t size)
{
    for (Py_ssize_t place = 0; place < size; place++) {
        double *row = rows + place * size;
        for (Py_ssize_t at = 0; at <= place; at++) {
            const double *other = rows + at * size;
            const double left = row[at] - multiply(row, other, at);
            if (at < place)
                row[at] = left / other[at];
            else if (left > 0.0)
                row[at] = sqrt(left);
            else /* or no number */
                return 0;
        }
    }
    return 1;
}

/* Whether sign * covariance + shares of the spread has a decomposition. */
static int is_positive(
    double *room, const double *covariance, double sign, const Row *spread, double share)
{
    const Py_ssize_t size = spread->length;
    for (Py_ssize_t at = 0; at < size * size; at++)
        room[at] = sign * covariance[at];
    for (Py_ssize_t at = 0; at < size; at++)
        room[at * (size + 1)] += share * spread->at[at];
    return decompose(room, size);
}

static int is_symmetric(const double *covariance, const Row *spread)
{
    const Py_ssize_t size = spread->length;
    for (Py_ssize_t place = 0; place < size; place++)
        for (Py_ssize_t at = 0; at < place; at++) {
            const double most = ROUNDING * sqrt(spread->at[place] * spread->at[at]);
            if (!(fabs(covariance[place * size + at] - covariance[at * size + place]) <= most))
                return 0;
        }
    return 1;
}

static PyObject *tell_whether_it_holds(const Row *rows, const Row *spread)
{
    if (!fits(rows, spread, 0))
        return NULL;
    double *room = PyMem_Malloc(spread->length * spread->length * sizeof *room);
    if (room == NULL)
        return PyErr_NoMemory();
    const int found = is_symmetric(rows->at, spread)
        && is_positive(room, rows->at, 1.0, spread, ROUNDING)
        && is_positive(room, rows->at, -1.0, spread, 1.0 + ROUNDING);
    PyMem_Free(room);
    return PyBool_FromLong(found);
}

static PyObject *holds(PyObject *module, PyObject *const *args, Py_ssize_t number)
{
    return of_two(args, number, tell_whether_it_holds);
}

static PyObject *scale(PyObject *module, PyObject *const *args, Py_ssize_t number)
{
    Row found;
    if (number != 2) {
        PyErr_SetString(PyExc_TypeError, "scale takes a row and a factor");
        return NULL;
    }
    const double factor = PyFloat_AsDouble(args[1]);
    if ((factor == -1.0 && PyErr_Occurred()) || !read_row(args[0], &found, PyBUF_WRITABLE))
        return NULL;
    for (Py_ssize_t at = 0; at < found.length; at++)
        found.at[at] = rint(found.at[at] * (10.0 * factor)) / 10.0;
    release(&found);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"dot", (PyCFunction)(void (*)(void))dot, METH_FASTCALL, NULL},
    {"project", (PyCFunction)(void (*)(void))project, METH_FASTCALL, NULL},
    {"learn", (PyCFunction)(void (*)(void))learn, METH_FASTCALL, NULL},
    {"holds", (PyCFunction)(void (*)(void))holds, METH_FASTCALL, NULL},
    {"scale", (PyCFunction)(void (*)(void))scale, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "linear", .m_size = 0, .m_methods = methods,
};

PyMODINIT_FUNC PyInit_linear(void)
{
    return PyModuleDef_Init(&definition);
}
