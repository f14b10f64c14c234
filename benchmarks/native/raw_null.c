/* The least that can answer Envoy's ext_proc streams: HTTP/2 frames, no HPACK, no protobuf.
 *
 *     raw_null PORT ANSWERS
 *
 * ANSWERS: for each kind of message its first byte, the length of the answer (4 bytes, big-endian)
 * and the answer. A stream in observability_mode gets none. For benchmarks only: it trusts its peer,
 * and does not look at the windows it may send in, which Envoy keeps far above these answers.
 */
#include "net.h"

enum { DATA = 0, HEADERS = 1, SETTINGS = 4, PING = 6, WINDOW_UPDATE = 8 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4 };
enum { REQUEST_BODY = 0x22, RESPONSE_TRAILERS = 0x3a, OBSERVABILITY_MODE = 10 };
enum { GREETING = 24, HEAD = 9, WINDOW = 1 << 30, READ_BYTES = 1 << 18 };

typedef struct {
  uint32_t left;      /* bytes of the message still due */
  uint8_t prefix, length[5], kind, begun, observing, answered;
} Stream;

typedef struct {
  int fd, greeted;
  uint8_t *in, *out;
  size_t held, due, room;
  Stream *streams;
  uint32_t known;
  uint64_t unannounced; /* bytes received since the last WINDOW_UPDATE */
} Connection;

static struct {
  uint8_t *data;
  uint32_t size;
} answers[256];

static void put(Connection *c, const void *data, size_t size) {
  if (c->due + size > c->room) c->out = realloc(c->out, c->room = 2 * (c->due + size));
  memcpy(c->out + c->due, data, size);
  c->due += size;
}

static void put_frame(Connection *c, uint32_t size, uint8_t type, uint8_t flags, uint32_t stream) {
  uint8_t head[HEAD] = {size >> 16, size >> 8, size, type, flags,
                        stream >> 24, stream >> 16, stream >> 8, stream};
  put(c, head, sizeof head);
}

static void put_window(Connection *c, uint32_t size) {
  uint8_t value[4] = {size >> 24, size >> 16, size >> 8, size};
  put_frame(c, 4, WINDOW_UPDATE, 0, 0);
  put(c, value, 4);
}

static void put_head(Connection *c, Stream *s, uint32_t number) {
  /* :status 200 of the static table; content-type by its index there, with a literal value. */
  static const uint8_t block[] = "\x88\x0f\x10\x10" "application/grpc";
  if (s->answered) return;
  s->answered = 1;
  put_frame(c, sizeof block - 1, HEADERS, END_HEADERS, number);
  put(c, block, sizeof block - 1);
}

static void finish(Connection *c, Stream *s, uint32_t number) {
  static const uint8_t block[] = "\x00\x0bgrpc-status\x01" "0";
  put_head(c, s, number);
  put_frame(c, sizeof block - 1, HEADERS, END_HEADERS | END_STREAM, number);
  put(c, block, sizeof block - 1);
}

static void answer(Connection *c, Stream *s, uint32_t number) {
  if (s->observing) {
    if (s->kind == RESPONSE_TRAILERS) finish(c, s, number);
    return;
  }
  uint32_t size = answers[s->kind].size;
  uint8_t prefix[5] = {0, size >> 24, size >> 16, size >> 8, size};
  put_head(c, s, number);
  put_frame(c, size + 5, DATA, 0, number);
  put(c, prefix, 5);
  put(c, answers[s->kind].data, size);
  if (s->kind == REQUEST_BODY) finish(c, s, number);
}

static uint64_t varint(const uint8_t *data, size_t size, size_t *at) {
  uint64_t value = 0;
  for (int shift = 0; *at < size && shift < 64; shift += 7) {
    uint8_t byte = data[(*at)++];
    value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  return value;
}

static int observes(const uint8_t *data, size_t size) {
  for (size_t at = 0; at < size;) {
    uint64_t key = varint(data, size, &at);
    uint64_t value = varint(data, size, &at);
    if (key >> 3 == OBSERVABILITY_MODE) return value != 0;
    if ((key & 7) == 2) at += value;
  }
  return 0;
}

static Stream *find(Connection *c, uint32_t number) {
  uint32_t index = number / 2;
  if (index >= c->known) {
    uint32_t more = 2 * index + 1024;
    c->streams = realloc(c->streams, more * sizeof *c->streams);
    memset(c->streams + c->known, 0, (more - c->known) * sizeof *c->streams);
    c->known = more;
  }
  return &c->streams[index];
}

static void take_data(Connection *c, uint32_t number, const uint8_t *data, size_t size) {
  Stream *s = find(c, number);
  for (size_t at = 0; at < size;) {
    if (s->prefix < 5) {
      s->length[s->prefix++] = data[at++];
      if (s->prefix < 5) continue;
      s->left = s->length[1] << 24 | s->length[2] << 16 | s->length[3] << 8 | s->length[4];
      s->kind = 0;
      if (s->left == 0) s->prefix = 0;
      continue;
    }
    size_t taken = size - at < s->left ? size - at : s->left;
    if (!s->kind) s->kind = data[at];
    if (!s->begun) {
      s->begun = 1;
      s->observing = observes(data + at, taken);
    }
    at += taken;
    s->left -= taken;
    if (s->left == 0) {
      s->prefix = 0;
      answer(c, s, number);
    }
  }
}

static void take_frame(Connection *c, const uint8_t *head, uint32_t size) {
  const uint8_t *payload = head + HEAD;
  uint32_t stream = (head[5] & 0x7f) << 24 | head[6] << 16 | head[7] << 8 | head[8];
  switch (head[3]) {
    case DATA:
      c->unannounced += size;
      take_data(c, stream, payload, size);
      break;
    case SETTINGS:
      if (!(head[4] & ACK)) put_frame(c, 0, SETTINGS, ACK, 0);
      break;
    case PING:
      if (head[4] & ACK) break;
      put_frame(c, 8, PING, ACK, 0);
      put(c, payload, 8);
  }
}

static Connection *greet(int fd) {
  /* MAX_CONCURRENT_STREAMS 2^20, INITIAL_WINDOW_SIZE 2^30 */
  static const uint8_t settings[] = {0, 3, 0, 0x10, 0, 0, 0, 4, 0x40, 0, 0, 0};
  Connection *c = calloc(1, sizeof *c);
  c->fd = fd;
  c->in = malloc(READ_BYTES);
  put_frame(c, sizeof settings, SETTINGS, 0, 0);
  put(c, settings, sizeof settings);
  put_window(c, WINDOW);
  return c;
}

static void flush(Connection *c) {
  if (c->unannounced > WINDOW / 4) {
    put_window(c, c->unannounced);
    c->unannounced = 0;
  }
  write_all(c->fd, c->out, c->due);
  c->due = 0;
}

static void receive(Connection *c) {
  ssize_t size = recv(c->fd, c->in + c->held, READ_BYTES - c->held, 0);
  if (size < 0 && errno == EAGAIN) return;
  if (size <= 0) {
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c->streams);
    free(c);
    return;
  }
  c->held += size;
  size_t at = 0;
  if (!c->greeted) {
    if (c->held < GREETING) return;
    at = GREETING;
    c->greeted = 1;
  }
  while (c->held - at >= HEAD) {
    uint8_t *head = c->in + at;
    uint32_t length = head[0] << 16 | head[1] << 8 | head[2];
    if (c->held - at < HEAD + length) break;
    take_frame(c, head, length);
    at += HEAD + length;
  }
  memmove(c->in, c->in + at, c->held - at);
  c->held -= at;
  flush(c);
}

static void read_answers(const char *path) {
  FILE *file = fopen(path, "rb");
  uint8_t head[5];
  if (!file) fail(path);
  while (fread(head, 1, 5, file) == 5) {
    uint32_t size = head[1] << 24 | head[2] << 16 | head[3] << 8 | head[4];
    answers[head[0]].size = size;
    answers[head[0]].data = malloc(size);
    if (fread(answers[head[0]].data, 1, size, file) != size) fail(path);
  }
  fclose(file);
}

int main(int count, char **arguments) {
  if (count != 3) return 2;
  read_answers(arguments[2]);
  int listener = listen_on(arguments[1]), epoll = epoll_create1(0);
  watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
  for (;;) {
    struct epoll_event events[64];
    int ready = epoll_wait(epoll, events, 64, -1);
    for (int i = 0; i < ready; i++) {
      if (events[i].data.ptr) {
        receive(events[i].data.ptr);
        continue;
      }
      int fd = accept(listener, NULL, NULL);
      if (fd < 0) continue;
      without_delay(fd);
      Connection *c = greet(fd);
      watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, c);
      flush(c);
    }
  }
}
