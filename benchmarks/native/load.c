/* HTTP/1.1 load: a closed loop, or requests at random times of a mean rate.
 *
 *     load PORT CONNECTIONS SECONDS RATE PATH HEADERS BODYFILE
 *
 * RATE 0 is the closed loop. HEADERS are further header lines, each with its CR LF. A request of the
 * open loop counts from the time at which it was due, so one that waits for a connection is late.
 * All requests that were started are finished and counted. Prints one line of JSON.
 */
#include "net.h"

#include <math.h>

enum { READ_BYTES = 1 << 16, HEAD_BYTES = 16384, MOST = 4000000 };

typedef struct {
  int fd, in_body, status, chunked;
  double start; /* 0: idle */
  size_t sent, held;
  long left;
  char tail[5], head[HEAD_BYTES + 1];
} Connection;

static const char *port;
static char *request;
static size_t request_size;
static int epoll, *idle, idle_count, busy_count;
static Connection *connections;
static float *times_us;
static long done_count, failed_count;

static void open_connection(Connection *c) {
  struct sockaddr_in address = local(port);
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(c->fd, (void *)&address, sizeof address)) fail("connect");
  without_delay(c->fd);
  watch(epoll, EPOLL_CTL_ADD, c->fd, EPOLLIN, c);
}

static void write_more(Connection *c) {
  while (c->sent < request_size) {
    ssize_t sent = send(c->fd, request + c->sent, request_size - c->sent, MSG_NOSIGNAL);
    if (sent <= 0) break; /* a broken connection is noticed when it is read */
    c->sent += sent;
  }
  uint32_t events = c->sent < request_size ? EPOLLIN | EPOLLOUT : EPOLLIN;
  watch(epoll, EPOLL_CTL_MOD, c->fd, events, c);
}

static void start(Connection *c, double at) {
  c->start = at;
  c->in_body = 0;
  c->sent = c->held = 0;
  busy_count++;
  ssize_t sent = send(c->fd, request, request_size, MSG_NOSIGNAL);
  c->sent = sent > 0 ? sent : 0;
  if (c->sent < request_size) write_more(c);
}

static void end(Connection *c, int good) {
  if (good && done_count < MOST) times_us[done_count++] = (now_s() - c->start) * 1e6;
  if (!good) failed_count++;
  c->start = 0;
  idle[idle_count++] = c - connections;
  busy_count--;
}

static const char *read_head(Connection *c, const char *data, size_t size) {
  size_t before = c->held, room = HEAD_BYTES - c->held, taken = size < room ? size : room;
  memcpy(c->head + c->held, data, taken);
  c->held += taken;
  c->head[c->held] = 0;
  char *stop = strstr(c->head, "\r\n\r\n");
  if (!stop) return NULL;
  stop[2] = 0;
  const char *length = strcasestr(c->head, "\r\ncontent-length:");
  c->status = atoi(c->head + 9);
  c->chunked = !length;
  c->left = length ? atol(length + 17) : 0;
  c->in_body = 1;
  memset(c->tail, 0, sizeof c->tail);
  return data + (stop + 4 - c->head - before);
}

/* Returns whether the answer ends here. */
static int read_body(Connection *c, const char *data, size_t size) {
  if (!c->chunked) return (c->left -= size) <= 0;
  for (size_t at = size > 5 ? size - 5 : 0; at < size; at++) {
    memmove(c->tail, c->tail + 1, 4);
    c->tail[4] = data[at];
  }
  return !memcmp(c->tail, "0\r\n\r\n", 5);
}

static void receive(Connection *c) {
  static char data[READ_BYTES];
  ssize_t size = recv(c->fd, data, sizeof data, 0);
  if (size < 0 && errno == EAGAIN) return;
  if (size <= 0) { /* Envoy closes idle connections too */
    close(c->fd);
    open_connection(c);
    if (c->start > 0) end(c, 0);
    return;
  }
  const char *at = c->in_body ? data : read_head(c, data, size);
  if (at && read_body(c, at, data + size - at)) end(c, c->status == 200);
}

static void make_request(const char *path, const char *headers, const char *file) {
  FILE *body = fopen(file, "rb");
  if (!body || fseek(body, 0, SEEK_END)) fail(file);
  long size = ftell(body);
  rewind(body);
  request = malloc(size + strlen(path) + strlen(headers) + 512);
  request_size = sprintf(request,
      "POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: bench\r\naccept: */*\r\n"
      "content-type: application/json\r\ncontent-length: %ld\r\n%s\r\n", path, size, headers);
  request_size += fread(request + request_size, 1, size, body);
  fclose(body);
}

static int ascending(const void *left, const void *right) {
  float a = *(const float *)left, b = *(const float *)right;
  return a < b ? -1 : a > b;
}

static float percentile(double share) {
  return done_count ? times_us[(long)(share * (done_count - 1))] : 0;
}

int main(int count, char **arguments) {
  if (count != 8) return 2;
  port = arguments[1];
  int size = atoi(arguments[2]);
  double seconds = atof(arguments[3]), rate = atof(arguments[4]);
  make_request(arguments[5], arguments[6], arguments[7]);
  times_us = malloc(MOST * sizeof *times_us);
  epoll = epoll_create1(0);
  connections = calloc(size, sizeof *connections);
  idle = calloc(size, sizeof *idle);
  for (int i = 0; i < size; i++) {
    open_connection(&connections[i]);
    idle[idle_count++] = i;
  }
  unsigned seed = 1;
  double begin = now_s(), due = begin, stop = begin + seconds;
  for (;;) {
    double now = now_s();
    while (now < stop && idle_count && (rate == 0 || due <= now)) {
      start(&connections[idle[--idle_count]], rate == 0 ? now : due);
      if (rate > 0) due += -log((rand_r(&seed) + 1.0) / (RAND_MAX + 2.0)) / rate;
    }
    if (now >= stop && (busy_count == 0 || now > stop + 10)) break;
    double wait = rate > 0 && idle_count && due > now && due < stop ? due - now : 0.05;
    struct timespec until = {.tv_sec = 0, .tv_nsec = (wait < 0.05 ? wait : 0.05) * 1e9};
    struct epoll_event events[64];
    int ready = epoll_pwait2(epoll, events, 64, &until, NULL);
    for (int i = 0; i < ready; i++) {
      Connection *c = events[i].data.ptr;
      if (events[i].events & EPOLLOUT) write_more(c);
      if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
    }
  }
  double elapsed = now_s() - begin;
  qsort(times_us, done_count, sizeof *times_us, ascending);
  printf("{\"requests\":%ld,\"failed\":%ld,\"seconds\":%.4f,\"p50_us\":%.0f,\"p99_us\":%.0f}\n",
         done_count, failed_count + busy_count, elapsed, percentile(0.5), percentile(0.99));
  return 0;
}
