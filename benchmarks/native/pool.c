/* A pool that costs little: reads an HTTP/1.1 request, answers a recorded completion of vLLM's.
 *
 *     pool PORT
 *
 * The usage states the prompt tokens of the header x-prompt-tokens (default 20).
 */
#include "net.h"

enum { HEAD_BYTES = 32768, READ_BYTES = 1 << 18 };

typedef struct {
  int fd;
  size_t held;     /* bytes of an unfinished head */
  long left;       /* bytes of the body still due; -1: chunked, up to its end */
  int in_body;
  long tokens;
  char tail[5];    /* of a chunked body */
  char head[HEAD_BYTES + 1];
} Connection;

static void answer(Connection *c) {
  char body[512], text[1024];
  int size = snprintf(body, sizeof body,
      "{\"id\":\"chatcmpl-954d7c448ebdbfa0\",\"object\":\"chat.completion\",\"created\":1795286208,"
      "\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
      "\"ok\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":%ld,\"total_tokens\":%ld,"
      "\"completion_tokens\":45}}",
      c->tokens, c->tokens + 45);
  size = snprintf(text, sizeof text,
      "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s", size, body);
  write_all(c->fd, text, size);
  c->in_body = 0;
}

static const char *field(const char *head, const char *name) {
  const char *found = strcasestr(head, name);
  return found ? found + strlen(name) : NULL;
}

/* Returns the bytes that belong to the body. */
static size_t take_body(Connection *c, const char *data, size_t size) {
  if (c->left < 0) {
    for (size_t at = 0; at < size; at++) {
      memmove(c->tail, c->tail + 1, 4);
      c->tail[4] = data[at];
      if (!memcmp(c->tail, "0\r\n\r\n", 5)) {
        answer(c);
        return at + 1;
      }
    }
    return size;
  }
  size_t taken = size < (size_t)c->left ? size : (size_t)c->left;
  c->left -= taken;
  if (c->left == 0) answer(c);
  return taken;
}

/* Returns the bytes that belong to the head; all of them if its end is not here yet. */
static size_t take_head(Connection *c, const char *data, size_t size) {
  size_t room = HEAD_BYTES - c->held, before = c->held;
  size_t taken = size < room ? size : room;
  memcpy(c->head + c->held, data, taken);
  c->held += taken;
  c->head[c->held] = 0;
  char *end = strstr(c->head, "\r\n\r\n");
  if (!end) {
    if (c->held == HEAD_BYTES) exit(1);
    return taken;
  }
  end[2] = 0;
  const char *length = field(c->head, "\r\ncontent-length:");
  const char *tokens = field(c->head, "\r\nx-prompt-tokens:");
  c->tokens = tokens ? atol(tokens) : 20;
  c->left = length ? atol(length) : field(c->head, "\r\ntransfer-encoding:") ? -1 : 0;
  c->in_body = 1;
  c->held = 0;
  memset(c->tail, 0, sizeof c->tail);
  size_t used = end + 4 - c->head - before;
  if (c->left == 0) answer(c);
  return used;
}

int main(int count, char **arguments) {
  if (count != 2) return 2;
  int listener = listen_on(arguments[1]), epoll = epoll_create1(0);
  char *data = malloc(READ_BYTES);
  watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
  for (;;) {
    struct epoll_event events[64];
    int ready = epoll_wait(epoll, events, 64, -1);
    for (int i = 0; i < ready; i++) {
      Connection *c = events[i].data.ptr;
      if (!c) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) continue;
        without_delay(fd);
        c = calloc(1, sizeof *c);
        c->fd = fd;
        watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, c);
        continue;
      }
      ssize_t size = recv(c->fd, data, READ_BYTES, 0);
      if (size < 0 && errno == EAGAIN) continue;
      if (size <= 0) {
        close(c->fd);
        free(c);
        continue;
      }
      for (size_t at = 0; at < (size_t)size;)
        at += c->in_body ? take_body(c, data + at, size - at) : take_head(c, data + at, size - at);
    }
  }
}
