/* What json_text.py does; see there. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define BLOCK 16
#define MOST_IN_BYTE 255
/* Short strings without an escape in a row: to look at one takes as long as to decode it. */
#define MOST_SHORT 256
typedef int8_t Block __attribute__((vector_size(BLOCK)));

typedef struct {
    const uint8_t *end; /* its closing quote; NULL if it has none */
    Py_ssize_t length;  /* decoded, as UTF-8 */
    int escaped;
    int valid;
} String;

static inline Block load(const uint8_t *at)
{
    Block bytes;
    memcpy(&bytes, at, BLOCK);
    return bytes;
}

/* Return what is not plain of a block; as signed numbers, those that are not ASCII are negative. */
static inline Block special(Block bytes)
{
    return (bytes < 0x20) | (bytes == '"') | (bytes == '\\');
}

/* Return the place of the first byte that a comparison has found, BLOCK if there is none. */
static inline int first_of(Block compared)
{
    uint64_t found[BLOCK / 8];
    memcpy(found, &compared, BLOCK);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    found[0] = __builtin_bswap64(found[0]), found[1] = __builtin_bswap64(found[1]);
#endif
    if (found[0])
        return __builtin_ctzll(found[0]) / 8;
    return found[1] ? 8 + __builtin_ctzll(found[1]) / 8 : BLOCK;
}

/* Not a quote, a backslash, a control character, nor part of a character that is not ASCII. */
static inline int is_plain(uint8_t byte)
{
    return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

/* Go to the next byte that is not plain, or to the end. */
static inline const uint8_t *skip_plain(const uint8_t *at, const uint8_t *end)
{
    if (at < end && !is_plain(*at))
        return at;
    while (end - at >= BLOCK) {
        const int plain = first_of(special(load(at)));
        at += plain;
        if (plain < BLOCK)
            return at;
    }
    while (at < end && is_plain(*at))
        at++;
    return at;
}

/* Return the length of the character that is not ASCII, 0 if it is invalid (RFC 3629). */
static inline int read_character(const uint8_t *at, const uint8_t *end)
{
    const uint8_t first = at[0];
    const int length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (first < 0xC2 || first > 0xF4 || end - at < length)
        return 0;
    const uint8_t least = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    const uint8_t most = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    if (at[1] < least || at[1] > most)
        return 0;
    for (int place = 2; place < length; place++)
        if ((at[place] & 0xC0) != 0x80)
            return 0;
    return length;
}

/* Return four hexadecimal digits as a number, a negative one if they are something else. */
static inline long read_hex(const uint8_t *at)
{
    /* Without branches, which random digits would mislead. */
    static const int8_t values[256] = {
        ['0'] = 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, /* 16 says that it is a digit */
        ['A'] = 26, 27, 28, 29, 30, 31, ['a'] = 26, 27, 28, 29, 30, 31,
    };
    const int8_t one = values[at[0]], two = values[at[1]], three = values[at[2]];
    const int8_t four = values[at[3]];
    const long number = (one & 15) << 12 | (two & 15) << 8 | (three & 15) << 4 | (four & 15);
    return one & two & three & four & 16 ? number : -1;
}

/* Return the length of `\uXXXX`, or of two that are one character; 0 if it is invalid. */
static inline int read_unicode(const uint8_t *at, const uint8_t *end, long *code)
{
    const long first = end - at < 6 ? -1 : read_hex(at + 2);
    *code = first;
    if (first < 0xD800)
        return first < 0 ? 0 : 6;
    if (first >= 0xE000)
        return 6;
    const int paired = first < 0xDC00 && end - at >= 12 && at[6] == '\\' && at[7] == 'u';
    const long second = paired ? read_hex(at + 8) : -1;
    if (second < 0xDC00 || second >= 0xE000)
        return 0;
    *code = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
    return 12;
}

/* Return the length of an escape, which means the character `code`; 0 if it is invalid. */
static inline int read_escape(const uint8_t *at, const uint8_t *end, long *code)
{
    switch (end - at < 2 ? 0 : at[1]) {
    case '"': *code = '"'; return 2;
    case '\\': *code = '\\'; return 2;
    case '/': *code = '/'; return 2;
    case 'b': *code = '\b'; return 2;
    case 'f': *code = '\f'; return 2;
    case 'n': *code = '\n'; return 2;
    case 'r': *code = '\r'; return 2;
    case 't': *code = '\t'; return 2;
    case 'u': return read_unicode(at, end, code);
    default: return 0;
    }
}

static inline int size_of(long code)
{
    return code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
}

/* Return the next quote, or the end. */
static inline const uint8_t *find_quote(const uint8_t *at, const uint8_t *end)
{
    while (end - at >= BLOCK) {
        const int before = first_of(load(at) == '"');
        at += before;
        if (before < BLOCK)
            return at;
    }
    while (at < end && *at != '"')
        at++;
    return at;
}

/* Read a string whose bytes before `at` are plain. */
static String read_string(const uint8_t *start, const uint8_t *at, const uint8_t *end)
{
    String read = {NULL, 0, 0, 1};
    while ((at = skip_plain(at, end)) < end && *at != '"') {
        long code = 0;
        int length = 0;
        if (*at == '\\') {
            read.escaped = 1;
            length = read_escape(at, end, &code);
            read.length += length ? size_of(code) - length : 0;
        } else if (*at >= 0x80) {
            length = read_character(at, end);
        }
        if (!length) {
            read.valid = 0;
            /* What a backslash precedes does not end the string. */
            length = *at == '\\' && end - at > 1 ? 2 : 1;
        }
        at += length;
    }
    read.end = at < end ? at : NULL;
    read.length += at - start;
    return read;
}

/* Write a character as UTF-8; return where the next one goes. */
static inline uint8_t *write_character(uint8_t *to, long code)
{
    const int size = size_of(code);
    for (int place = size - 1; place > 0; place--, code >>= 6)
        to[place] = 0x80 | (code & 0x3F);
    to[0] = size == 1 ? code : (uint8_t)(0xF00 >> size) | code;
    return to + size;
}

/* Decode a valid string. */
static PyObject *decode(const uint8_t *at, String read)
{
    if (!read.escaped)
        return PyBytes_FromStringAndSize((const char *)at, read.length);
    PyObject *decoded = PyBytes_FromStringAndSize(NULL, read.length);
    if (decoded == NULL)
        return NULL;
    uint8_t *to = (uint8_t *)PyBytes_AS_STRING(decoded);
    const uint8_t *last = to + read.length;
    while (at < read.end) {
        long code = 0;
        int plain = *at != '\\';
        if (plain && read.end - at >= BLOCK && last - to >= BLOCK) {
            memcpy(to, at, BLOCK);
            plain = first_of(load(at) == '\\');
        } else if (plain) {
            *to = *at;
        }
        at += plain, to += plain;
        if (plain)
            continue;
        const int length = read_escape(at, read.end, &code);
        at += length;
        to = write_character(to, code);
    }
    return decoded;
}

static int append(PyObject *list, PyObject *item)
{
    const int failed = item == NULL || PyList_Append(list, item) < 0;
    Py_XDECREF(item);
    return failed;
}

/* Put what precedes a string from `kept` on, and its mark, to the pieces. */
static int cut(
    PyObject *pieces, PyObject *texts, const uint8_t *kept, const uint8_t *start, String read,
    const char *mark)
{
    const Py_ssize_t number = PyList_GET_SIZE(texts);
    return append(pieces, PyBytes_FromStringAndSize((const char *)kept, start - kept))
        || append(pieces, PyBytes_FromFormat("%s%zd", mark, number))
        || append(texts, decode(start, read));
}

static int cut_all(
    PyObject *pieces, PyObject *texts, const Py_buffer *body, const char *mark, Py_ssize_t least)
{
    const uint8_t *at = body->buf, *end = at + body->len, *kept = at;
    int short_ones = 0;
    while ((at = find_quote(at, end)) < end) {
        const uint8_t *start = at + 1;
        at = skip_plain(start, end);
        if (at < end && *at == '"' && at - start < least) {
            at++;
            if (++short_ones == MOST_SHORT)
                break;
            continue;
        }
        short_ones = 0;
        const String read = read_string(start, at, end);
        if (read.end == NULL)
            break;
        if (read.valid && read.end - start >= least) {
            if (cut(pieces, texts, kept, start, read, mark))
                return 1;
            kept = read.end;
        }
        at = read.end + 1;
    }
    return PyList_GET_SIZE(texts)
        && append(pieces, PyBytes_FromStringAndSize((const char *)kept, end - kept));
}

static PyObject *cut_long(PyObject *module, PyObject *const *args, Py_ssize_t number)
{
    Py_buffer body;
    PyObject *found = NULL;
    if (number != 3 || !PyBytes_Check(args[1]) || !PyLong_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "cut_long takes a text, a mark and a length");
        return NULL;
    }
    const Py_ssize_t least = PyLong_AsSsize_t(args[2]);
    if (PyErr_Occurred() || PyObject_GetBuffer(args[0], &body, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *pieces = PyList_New(0), *texts = PyList_New(0);
    if (pieces != NULL && texts != NULL
        && !cut_all(pieces, texts, &body, PyBytes_AS_STRING(args[1]), least))
        found = PyTuple_Pack(2, pieces, texts);
    PyBuffer_Release(&body);
    Py_XDECREF(pieces);
    Py_XDECREF(texts);
    return found;
}

#define MOST_KEYS 64 /* of the objects that are open */
#define MOST_DEPTH 32
#define MOST_DIGITS 15 /* so many are those of the shortest text that means the number */

typedef struct {
    const uint8_t *start;
    size_t length;
} Key;

/* A JSON text that is read at `at`, and written at `to` without spaces: never longer. */
typedef struct {
    const uint8_t *at, *end;
    uint8_t *to;
    int depth, known;
    Key keys[MOST_KEYS];
} Writer;

static int write_value(Writer *text);

static inline void skip_space(Writer *text)
{
    while (text->at < text->end
           && (*text->at == ' ' || *text->at == '\n' || *text->at == '\r' || *text->at == '\t'))
        text->at++;
}

/* Skip spaces, and write the sign if it is the next one. */
static inline int write_sign(Writer *text, uint8_t sign)
{
    skip_space(text);
    if (text->at == text->end || *text->at != sign)
        return 0;
    *text->to++ = *text->at++;
    return 1;
}

/* Write an escape as an encoder does: what need not be escaped is not. */
static int write_escape(Writer *text)
{
    long code = 0;
    const int length = read_escape(text->at, text->end, &code);
    if (!length || (length > 2 && (code < 0x20 || code == '"' || code == '\\')))
        return 0;
    if (length == 2 && code != '/') {
        *text->to++ = '\\';
        *text->to++ = text->at[1];
    } else {
        text->to = write_character(text->to, code);
    }
    text->at += length;
    return 1;
}

static int write_string(Writer *text)
{
    if (!write_sign(text, '"'))
        return 0;
    while (text->at < text->end) {
        if (text->end - text->at >= BLOCK) {
            const Block bytes = load(text->at);
            memcpy(text->to, &bytes, BLOCK);
            const int plain = first_of(special(bytes));
            text->at += plain, text->to += plain;
            if (plain == BLOCK)
                continue;
        }
        const uint8_t byte = *text->at;
        if (byte == '"') {
            *text->to++ = *text->at++;
            return 1;
        }
        if (byte == '\\') {
            if (!write_escape(text))
                return 0;
            continue;
        }
        int length = byte < 0x80 ? is_plain(byte) : read_character(text->at, text->end);
        if (!length)
            return 0;
        while (length--)
            *text->to++ = *text->at++;
    }
    return 0;
}

static inline Py_ssize_t count_digits(const uint8_t *at, const uint8_t *end)
{
    const uint8_t *start = at;
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    return at - start;
}

/* Write a number that an encoder writes with the same digits; 0 if it might not. */
static int write_number(Writer *text)
{
    const uint8_t *at = text->at, *end = text->end;
    const int negative = *at == '-';
    at += negative;
    const Py_ssize_t whole = count_digits(at, end);
    if (!whole || (*at == '0' && (whole > 1 || negative)))
        return 0;
    const int small = *at == '0';
    at += whole;
    Py_ssize_t digits = whole;
    if (at < end && *at == '.') {
        const uint8_t *first = ++at;
        const Py_ssize_t decimals = count_digits(at, end);
        digits += decimals;
        at += decimals;
        /* 0.0001 and less, and 1.50, may be written in another way. */
        if (!decimals || (at[-1] == '0' && decimals > 1)
            || (small && decimals > 3 && !memcmp(first, "000", 3)))
            return 0;
    }
    if (digits > MOST_DIGITS || (at < end && (*at == 'e' || *at == 'E')))
        return 0;
    memcpy(text->to, text->at, at - text->at);
    text->to += at - text->at;
    text->at = at;
    return 1;
}

static int write_word(Writer *text, const char *word, Py_ssize_t length)
{
    if (text->end - text->at < length || memcmp(text->at, word, length))
        return 0;
    memcpy(text->to, word, length);
    text->at += length, text->to += length;
    return 1;
}

/* Of a key that comes twice a decoder keeps the last value. */
static int is_new(Writer *text, int first, const uint8_t *start)
{
    const Key found = {start, text->to - start};
    for (const Key *each = text->keys + first; each < text->keys + text->known; each++)
        if (each->length == found.length && !memcmp(each->start, start, found.length))
            return 0;
    if (text->known == MOST_KEYS)
        return 0;
    text->keys[text->known++] = found;
    return 1;
}

static int write_object(Writer *text)
{
    const int first = text->known;
    if (!write_sign(text, '{'))
        return 0;
    if (write_sign(text, '}'))
        return 1;
    do {
        skip_space(text);
        const uint8_t *start = text->to;
        if (!write_string(text) || !is_new(text, first, start) || !write_sign(text, ':')
            || !write_value(text))
            return 0;
    } while (write_sign(text, ','));
    text->known = first;
    return write_sign(text, '}');
}

static int write_array(Writer *text)
{
    if (!write_sign(text, '['))
        return 0;
    if (write_sign(text, ']'))
        return 1;
    do {
        if (!write_value(text))
            return 0;
    } while (write_sign(text, ','));
    return write_sign(text, ']');
}

static int write_value(Writer *text)
{
    skip_space(text);
    if (text->at == text->end || text->depth == MOST_DEPTH)
        return 0;
    int written;
    text->depth++;
    switch (*text->at) {
    case '"': written = write_string(text); break;
    case '{': written = write_object(text); break;
    case '[': written = write_array(text); break;
    case 't': written = write_word(text, "true", 4); break;
    case 'f': written = write_word(text, "false", 5); break;
    case 'n': written = write_word(text, "null", 4); break;
    default: written = write_number(text);
    }
    text->depth--;
    return written;
}

/* Write each object of an array into a text; 1 if all were, -1 after an error. */
static int write_objects(Writer *text, PyObject *texts)
{
    if (!write_sign(text, '['))
        return 0;
    if (!write_sign(text, ']')) {
        do {
            const uint8_t *start = (skip_space(text), text->to);
            if (!write_object(text))
                return 0;
            if (append(texts, PyUnicode_DecodeUTF8((const char *)start, text->to - start, NULL)))
                return -1;
        } while (write_sign(text, ','));
        if (!write_sign(text, ']'))
            return 0;
    }
    skip_space(text);
    return text->at == text->end;
}

static PyObject *write_compact(PyObject *module, PyObject *array)
{
    Py_buffer body;
    Writer text = {.depth = 0};
    if (PyObject_GetBuffer(array, &body, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *texts = PyList_New(0);
    uint8_t *room = PyMem_Malloc(body.len + BLOCK); /* whole blocks are written */
    int written = -1;
    if (texts != NULL && room != NULL) {
        text.at = body.buf, text.end = text.at + body.len, text.to = room;
        written = write_objects(&text, texts);
    } else if (texts != NULL) {
        PyErr_NoMemory();
    }
    PyMem_Free(room);
    PyBuffer_Release(&body);
    if (written == 1)
        return texts;
    Py_XDECREF(texts);
    if (written < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *count_byte(PyObject *module, PyObject *const *args, Py_ssize_t number)
{
    Py_buffer body;
    if (number != 2 || !PyBytes_Check(args[1]) || PyBytes_GET_SIZE(args[1]) != 1) {
        PyErr_SetString(PyExc_TypeError, "count_byte takes a text and a byte");
        return NULL;
    }
    if (PyObject_GetBuffer(args[0], &body, PyBUF_SIMPLE) < 0)
        return NULL;
    const char *text = body.buf, sign = PyBytes_AS_STRING(args[1])[0];
    Py_ssize_t found = 0;
    for (Py_ssize_t start = 0; start < body.len; start += MOST_IN_BYTE) {
        const Py_ssize_t end = start + MOST_IN_BYTE < body.len ? start + MOST_IN_BYTE : body.len;
        uint8_t piece = 0; /* as wide as the text's bytes, so that 16 are counted at once */
        for (Py_ssize_t at = start; at < end; at++)
            piece += text[at] == sign;
        found += piece;
    }
    PyBuffer_Release(&body);
    return PyLong_FromSsize_t(found);
}

static PyMethodDef methods[] = {
    {"count_byte", (PyCFunction)(void (*)(void))count_byte, METH_FASTCALL, NULL},
    {"write_compact", write_compact, METH_O, NULL},
    {"cut_long", (PyCFunction)(void (*)(void))cut_long, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "json_text", .m_size = 0, .m_methods = methods,
};

PyMODINIT_FUNC PyInit_json_text(void)
{
    return PyModuleDef_Init(&definition);
}
