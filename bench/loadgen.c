/* A NATS load generator that is not the limit: one thread, raw protocol, about 1 µs of CPU per request.
 *
 *   loadgen HOST PORT closed SUBJECT FILE CONNECTIONS OUTSTANDING WARMUP_MS MEASURE_MS ID_BASE EXPECT
 *   loadgen HOST PORT open   SUBJECT FILE CONNECTIONS RATE        WARMUP_MS MEASURE_MS ID_BASE EXPECT
 *   loadgen HOST PORT echo   SUBJECT            (answers every request with its own payload, until SIGTERM)
 *
 * FILE holds request templates, each: u32 length, u32 offset of the id, payload (little-endian). The 16 hex digits at the
 * offset are patched to ID_BASE + n, so that every request has an id of its own. Requests go round the templates in order.
 *
 * closed: OUTSTANDING requests are always under way; latency counts from the send.
 * open:   one request every 1/RATE s, whatever comes back; latency counts from the moment the request was due, not from
 *         when it was sent (no coordinated omission). `late_max_us` says how far sending itself fell behind.
 *
 * Prints START and END when the measured window opens and closes, then one line of JSON. A reply is good when it holds
 * EXPECT; any other is counted under its "code". Bounded: gives up on what is not answered DRAIN_MS after the window.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 64, RING = 1 << 20, MAX_SAMPLES = 8 << 20, MAX_CODES = 24, READ_CHUNK = 1 << 18, DRAIN_MS = 3000 };

typedef struct { char *data; size_t len, cap, at; } Buffer;
typedef struct { int fd; Buffer in, out; char prefix[256]; size_t prefix_len; } Connection;
typedef struct { uint32_t len, id_at; char *data; } Template;

static Connection conns[MAX_CONNECTIONS];
static int n_conns;
static Template *templates;
static size_t n_templates;
static uint64_t due_ns[RING]; /* 0: no request of that number is under way */
static uint32_t *samples;     /* latency in 100 ns */
static size_t n_samples, n_overflow;
static struct { char name[48]; uint64_t count; } codes[MAX_CODES];
static int n_codes;
static uint64_t sent, answered, id_base, ok_count, replayed, duplicates, in_window, late_max_ns;
static uint64_t t_open, t_close; /* the measured window */
static const char *expect;
static int open_loop, echo_mode, sending = 1;

static void die(const char *what) { fprintf(stderr, "loadgen: %s (%s)\n", what, errno ? strerror(errno) : "protocol"); exit(1); }

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double cpu_s(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static char *room(Buffer *b, size_t n) {
    if (b->len + n > b->cap) {
        b->cap = (b->len + n) * 2;
        if (!(b->data = realloc(b->data, b->cap))) die("out of memory");
    }
    return b->data + b->len;
}

static void append(Buffer *b, const void *data, size_t n) { memcpy(room(b, n), data, n); b->len += n; }

static size_t decimal(char *to, uint64_t v) {
    char digits[20];
    size_t n = 0;
    do digits[n++] = (char)('0' + v % 10); while (v /= 10);
    for (size_t i = 0; i < n; i++) to[i] = digits[n - 1 - i];
    return n;
}

static void hex16(char *to, uint64_t v) {
    for (int i = 15; i >= 0; i--, v >>= 4) to[i] = "0123456789abcdef"[v & 15];
}

static void send_request(Connection *c, uint64_t due) {
    const Template *t = &templates[sent % n_templates];
    char line[64];
    size_t n = decimal(line, sent);
    line[n++] = ' ';
    n += decimal(line + n, t->len);
    memcpy(line + n, "\r\n", 2);
    append(&c->out, c->prefix, c->prefix_len);
    append(&c->out, line, n + 2);
    size_t at = c->out.len;
    append(&c->out, t->data, t->len);
    hex16(c->out.data + at + t->id_at, id_base + sent);
    append(&c->out, "\r\n", 2);
    due_ns[sent++ & (RING - 1)] = due;
}

static void count_code(const char *name, size_t len) {
    if (len >= sizeof codes[0].name) len = sizeof codes[0].name - 1;
    int i = 0;
    while (i < n_codes && (strncmp(codes[i].name, name, len) || codes[i].name[len])) i++;
    if (i == MAX_CODES) i = MAX_CODES - 1;
    else if (i == n_codes) { memcpy(codes[i].name, name, len); n_codes++; }
    codes[i].count++;
}

static void judge(const char *head, size_t head_len, const char *body, size_t len) {
    static const char key[] = "\"code\":\"", seen[] = "\"replayed\":true";
    if (memmem(body, len, expect, strlen(expect))) {
        ok_count++;
        if (memmem(body, len, seen, sizeof seen - 1)) replayed++;
        return;
    }
    if (head_len > 12 && !memcmp(head, "NATS/1.0 503", 12)) { count_code("no_responders", 13); return; }
    const char *code = memmem(body, len, key, sizeof key - 1);
    const char *end = code ? memchr(code + sizeof key - 1, '"', len - (size_t)(code + sizeof key - 1 - body)) : NULL;
    if (end) count_code(code + sizeof key - 1, (size_t)(end - code) - (sizeof key - 1));
    else count_code("not_a_reply", 11);
}

static void on_reply(Connection *c, uint64_t number, uint64_t now, const char *head, size_t head_len, const char *body, size_t len) {
    uint64_t due = due_ns[number & (RING - 1)];
    if (!due || number >= sent) { duplicates++; return; }
    due_ns[number & (RING - 1)] = 0;
    answered++;
    if (now >= t_open && now < t_close) in_window++;
    uint64_t counts_at = open_loop ? due : now;
    if (counts_at >= t_open && counts_at < t_close) {
        judge(head, head_len, body, len);
        if (n_samples < MAX_SAMPLES) samples[n_samples++] = (uint32_t)((now > due ? now - due : 0) / 100);
        else n_overflow++;
    }
    if (!open_loop && sending) send_request(c, now);
}

/* One MSG or HMSG whose line is `line`..`end`; false when its body is not complete yet. */
static int on_message(Connection *c, char *line, char *end, char *limit, uint64_t now) {
    char *field[6];
    int n = 0, headers = line[0] == 'H';
    for (char *p = line; p < end && n < 6;) {
        while (p < end && *p == ' ') p++;
        field[n++] = p;
        while (p < end && *p != ' ') p++;
    }
    int sizes = headers ? 2 : 1;
    if (n < 3 + sizes) die("a message line is too short");
    size_t total = strtoul(field[n - 1], NULL, 10), head = headers ? strtoul(field[n - 2], NULL, 10) : 0;
    char *data = end + 2;
    if ((size_t)(limit - data) < total + 2) return 0;
    if (echo_mode) {
        if (n == 4 + sizes) {
            char *reply = field[3], *reply_end = memchr(reply, ' ', (size_t)(end - reply));
            append(&c->out, "PUB ", 4);
            append(&c->out, reply, (size_t)(reply_end - reply));
            char size[24] = " ";
            size_t size_len = 1 + decimal(size + 1, total - head);
            append(&c->out, size, size_len);
            append(&c->out, "\r\n", 2);
            append(&c->out, data + head, total - head + 2);
        }
    } else {
        char *subject_end = memchr(field[1], ' ', (size_t)(end - field[1])), *digits = subject_end;
        while (digits[-1] != '.') digits--;
        on_reply(c, strtoull(digits, NULL, 10), now, data, head, data + head, total - head);
    }
    c->in.at = (size_t)(data + total + 2 - c->in.data);
    return 1;
}

static void on_readable(Connection *c) {
    char *to = room(&c->in, READ_CHUNK);
    ssize_t got = read(c->fd, to, READ_CHUNK);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) die("the server closed the connection");
    c->in.len += (size_t)got;
    uint64_t now = now_ns();
    for (;;) {
        char *line = c->in.data + c->in.at, *limit = c->in.data + c->in.len;
        char *end = limit - line >= 2 ? memmem(line, (size_t)(limit - line), "\r\n", 2) : NULL;
        if (!end) break;
        if (!memcmp(line, "MSG ", 4) || !memcmp(line, "HMSG ", 5)) {
            if (!on_message(c, line, end, limit, now)) break;
            continue;
        }
        if (!memcmp(line, "PING", 4)) append(&c->out, "PONG\r\n", 6);
        else if (!memcmp(line, "-ERR", 4)) { *end = 0; fprintf(stderr, "loadgen: server says %s\n", line); exit(1); }
        c->in.at = (size_t)(end + 2 - c->in.data);
    }
    memmove(c->in.data, c->in.data + c->in.at, c->in.len - c->in.at);
    c->in.len -= c->in.at;
    c->in.at = 0;
}

static void flush(Connection *c) {
    while (c->out.at < c->out.len) {
        ssize_t n = write(c->fd, c->out.data + c->out.at, c->out.len - c->out.at);
        if (n < 0 && errno == EAGAIN) return;
        if (n < 0) die("write");
        c->out.at += (size_t)n;
    }
    c->out.at = c->out.len = 0;
}

/* Waits at most `wait_ns` for the sockets, then reads and writes what can be. */
static void turn(uint64_t wait_ns) {
    struct pollfd fds[MAX_CONNECTIONS];
    for (int i = 0; i < n_conns; i++) {
        flush(&conns[i]);
        fds[i] = (struct pollfd){conns[i].fd, (short)(POLLIN | (conns[i].out.len ? POLLOUT : 0)), 0};
    }
    struct timespec wait = {(time_t)(wait_ns / 1000000000u), (long)(wait_ns % 1000000000u)};
    if (ppoll(fds, (nfds_t)n_conns, &wait, NULL) < 0 && errno != EINTR) die("poll");
    for (int i = 0; i < n_conns; i++)
        if (fds[i].revents & (POLLIN | POLLHUP | POLLERR)) on_readable(&conns[i]);
}

static void open_connection(const char *host, int port, const char *subject, int i) {
    Connection *c = &conns[i];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1;
    if (inet_pton(AF_INET, host, &to.sin_addr) != 1) die("the host is not an IPv4 address");
    if ((c->fd = socket(AF_INET, SOCK_STREAM, 0)) < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to)) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    char hello[512];
    int n = snprintf(hello, sizeof hello, "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,"
                     "\"protocol\":1,\"lang\":\"c\",\"version\":\"1\",\"name\":\"bench\"}\r\n");
    append(&c->out, hello, (size_t)n);
    if (echo_mode) n = snprintf(hello, sizeof hello, "SUB %s 1\r\nPING\r\n", subject);
    else n = snprintf(hello, sizeof hello, "SUB _INBOX.%d.%d.* 1\r\nPING\r\n", (int)getpid(), i);
    append(&c->out, hello, (size_t)n);
    c->prefix_len = (size_t)snprintf(c->prefix, sizeof c->prefix, "PUB %s _INBOX.%d.%d.", subject, (int)getpid(), i);
    n_conns = i + 1;
}

static void load_templates(const char *path) {
    FILE *f = fopen(path, "rb");
    uint32_t head[2];
    size_t cap = 0;
    if (!f) die(path);
    while (fread(head, sizeof head, 1, f) == 1) {
        if (n_templates == cap && !(templates = realloc(templates, (cap = cap * 2 + 256) * sizeof *templates))) die("out of memory");
        Template *t = &templates[n_templates++];
        *t = (Template){head[0], head[1], malloc(head[0])};
        if (!t->data || fread(t->data, 1, t->len, f) != t->len || t->id_at + 16 > t->len) die("the template file is cut");
    }
    fclose(f);
    if (!n_templates) die("the template file is empty");
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double quantile_us(double q) {
    if (!n_samples) return 0;
    size_t i = (size_t)(q * (double)n_samples);
    return samples[i < n_samples ? i : n_samples - 1] / 10.0;
}

static void report(double cpu, uint64_t lost) {
    double sum = 0, window = (double)(t_close - t_open) / 1e9;
    for (size_t i = 0; i < n_samples; i++) sum += samples[i];
    qsort(samples, n_samples, sizeof *samples, by_value);
    printf("{\"answered\":%llu,\"window_s\":%.6f,\"rate\":%.1f,\"sent\":%llu,\"ok\":%llu,\"replayed\":%llu,\"duplicates\":%llu,\"lost\":%llu,"
           "\"unsampled\":%zu,\"generator_cpu_s\":%.6f,\"late_max_us\":%.1f,\"errors\":{",
           (unsigned long long)in_window, window, (double)in_window / window, (unsigned long long)sent, (unsigned long long)ok_count,
           (unsigned long long)replayed, (unsigned long long)duplicates, (unsigned long long)lost, n_overflow, cpu, (double)late_max_ns / 1e3);
    for (int i = 0; i < n_codes; i++) printf("%s\"%s\":%llu", i ? "," : "", codes[i].name, (unsigned long long)codes[i].count);
    printf("},\"latency_us\":{\"mean\":%.1f,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}}\n",
           n_samples ? sum / (double)n_samples / 10.0 : 0, quantile_us(.5), quantile_us(.9), quantile_us(.99), quantile_us(.999), quantile_us(1));
}

static void send_due(uint64_t t0, double interval_ns, uint64_t now) {
    for (;;) {
        uint64_t due = t0 + (uint64_t)((double)sent * interval_ns);
        if (due > now || sent - answered >= RING) return;
        if (due >= t_open && now - due > late_max_ns) late_max_ns = now - due;
        send_request(&conns[sent % (uint64_t)n_conns], due);
    }
}

static void run(uint64_t amount, uint64_t warmup_ms, uint64_t measure_ms) {
    double interval_ns = open_loop ? 1e9 / (double)amount : 0, cpu = 0;
    uint64_t t0 = now_ns(), now = t0, stop;
    int phase = 0;
    t_open = t0 + warmup_ms * 1000000u;
    t_close = t_open + measure_ms * 1000000u;
    stop = t_close + (uint64_t)DRAIN_MS * 1000000u;
    if (!open_loop)
        for (uint64_t i = 0; i < amount; i++) send_request(&conns[i % (uint64_t)n_conns], now);
    while (now < stop && (sending || answered < sent)) {
        uint64_t wait = (phase == 0 ? t_open : phase == 1 ? t_close : stop) - now;
        if (open_loop && sending) {
            send_due(t0, interval_ns, now);
            uint64_t next = t0 + (uint64_t)((double)sent * interval_ns);
            if (next < now + wait) wait = next > now ? next - now : 0;
        }
        turn(wait);
        now = now_ns();
        if (phase == 0 && now >= t_open) { phase = 1; cpu = cpu_s(); puts("START"); fflush(stdout); }
        if (phase == 1 && now >= t_close) { phase = 2; cpu = cpu_s() - cpu; puts("END"); fflush(stdout); sending = 0; }
    }
    report(cpu, sent - answered);
}

int main(int argc, char **argv) {
    if (argc < 5) { fputs("usage: see the head of loadgen.c\n", stderr); return 2; }
    const char *mode = argv[3], *subject = argv[4];
    prctl(PR_SET_PDEATHSIG, 15); /* no orphan when the bench is killed */
    prctl(PR_SET_TIMERSLACK, 1);
    echo_mode = !strcmp(mode, "echo");
    open_loop = !strcmp(mode, "open");
    if (!echo_mode && argc != 12) { fputs("usage: see the head of loadgen.c\n", stderr); return 2; }
    int wanted = echo_mode ? 1 : atoi(argv[6]);
    if (wanted < 1 || wanted > MAX_CONNECTIONS) die("connections out of range");
    for (int i = 0; i < wanted; i++) open_connection(argv[1], atoi(argv[2]), subject, i);
    if (echo_mode) for (;;) turn(1000000000u);
    load_templates(argv[5]);
    uint64_t amount = strtoull(argv[7], NULL, 10);
    if (!amount || (!open_loop && amount > RING / 2)) die("outstanding or rate out of range");
    id_base = strtoull(argv[10], NULL, 16);
    expect = argv[11];
    if (!(samples = malloc(MAX_SAMPLES * sizeof *samples))) die("out of memory");
    run(amount, strtoull(argv[8], NULL, 10), strtoull(argv[9], NULL, 10));
    return 0;
}
