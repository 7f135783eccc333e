/* Publishes prepared messages over MQTT 3.1.1 at QoS 1 and counts the broker's PUBACKs.
 *
 *   load_generator HOST PORT FILE FIRST COUNT RATE CONNECTIONS WINDOW [STAMPS]
 *
 * FILE is a series of records: topic length (2 octets, big-endian), topic, payload length (4 octets,
 * big-endian), payload. COUNT of them from FIRST on are sent at RATE messages a second (0: as fast as
 * the windows allow), the next on the next connection, at most WINDOW unacknowledged on each.
 * STAMPS receives, for every message, the wall clock at its sending: 8 octets, little-endian,
 * nanoseconds. Standard output: one line of JSON. Exit status 0 when every message was acknowledged.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cpu.h"

enum { OUTPUT = 1 << 16, INPUT = 1 << 14, MOST_CONNECTIONS = 64, GIVE_UP_S = 120 };
enum { CONNACK = 2, PUBACK = 4 };

struct record {
    const unsigned char *topic, *payload;
    uint32_t topic_length, payload_length;
};

struct connection {
    int socket;
    uint16_t packet_id;
    long unacknowledged;
    unsigned char output[OUTPUT], input[INPUT];
    size_t begin, end; /* of what waits in output */
    size_t held;       /* octets in input */
};

static int64_t wall_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static size_t put_length(unsigned char *to, uint32_t length) {
    size_t used = 0;
    do {
        to[used] = length & 127;
        length >>= 7;
        if (length) to[used] |= 128;
        used++;
    } while (length);
    return used;
}

static struct record *read_records(const char *path, long first, long count) {
    int file = open(path, O_RDONLY);
    struct stat size;
    if (file < 0 || fstat(file, &size)) fail(path);
    const unsigned char *at = mmap(NULL, size.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    if (at == MAP_FAILED) fail(path);
    const unsigned char *end = at + size.st_size;
    struct record *records = calloc(count, sizeof *records);
    if (!records) fail("memory");
    for (long place = 0; place < first + count; place++) {
        if (end - at < 2) { fprintf(stderr, "%s holds %ld messages\n", path, place); exit(2); }
        struct record each;
        each.topic_length = at[0] << 8 | at[1];
        each.topic = at + 2;
        at = each.topic + each.topic_length;
        each.payload_length = (uint32_t)at[0] << 24 | at[1] << 16 | at[2] << 8 | at[3];
        each.payload = at + 4;
        at = each.payload + each.payload_length;
        if (each.topic_length + each.payload_length > OUTPUT / 2) exit(2);
        if (place >= first) records[place - first] = each;
    }
    return records;
}

static void open_connection(struct connection *each, const char *host, int port, int number) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1;
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) { fputs("give an IPv4 address\n", stderr); exit(2); }
    each->socket = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(each->socket, (struct sockaddr *)&address, sizeof address)) fail("connect");
    setsockopt(each->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    char name[32];
    int length = snprintf(name, sizeof name, "load-%d-%d", getpid(), number);
    /* Ten minutes of keep-alive: brokers may refuse none at all, and no run is silent so long. */
    unsigned char hello[64] = {0x10, 12 + length, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0x02, 0x58, 0, length};
    memcpy(hello + 14, name, length);
    if (write(each->socket, hello, 14 + length) != 14 + length) fail("write");
    unsigned char answer[4];
    for (size_t had = 0; had < sizeof answer;) {
        ssize_t more = read(each->socket, answer + had, sizeof answer - had);
        if (more <= 0) fail("no answer from the broker");
        had += more;
    }
    if (answer[0] >> 4 != CONNACK || answer[3]) { fprintf(stderr, "the broker refuses: code %d\n", answer[3]); exit(1); }
    fcntl(each->socket, F_SETFL, O_NONBLOCK);
}

/* True if there is room for the record and its packet was appended. */
static int append(struct connection *each, const struct record *record) {
    if (each->begin == each->end) each->begin = each->end = 0;
    size_t body = 2 + record->topic_length + 2 + record->payload_length;
    if (OUTPUT - each->end < body + 5) return 0;
    unsigned char *to = each->output + each->end;
    *to++ = 0x32; /* PUBLISH, QoS 1 */
    to += put_length(to, body);
    *to++ = record->topic_length >> 8;
    *to++ = record->topic_length & 255;
    memcpy(to, record->topic, record->topic_length);
    to += record->topic_length;
    each->packet_id = each->packet_id % 65535 + 1;
    *to++ = each->packet_id >> 8;
    *to++ = each->packet_id & 255;
    memcpy(to, record->payload, record->payload_length);
    to += record->payload_length;
    each->end = to - each->output;
    each->unacknowledged++;
    return 1;
}

static void flush(struct connection *each) {
    if (each->begin == each->end) return;
    ssize_t wrote = write(each->socket, each->output + each->begin, each->end - each->begin);
    if (wrote > 0) each->begin += wrote;
    else if (errno != EAGAIN) fail("write");
}

/* The number of messages that the broker acknowledged. */
static long receive(struct connection *each) {
    ssize_t more = read(each->socket, each->input + each->held, INPUT - each->held);
    if (more == 0 || (more < 0 && errno != EAGAIN)) fail("the broker closed the connection");
    if (more < 0) return 0;
    each->held += more;
    long acknowledged = 0;
    size_t at = 0;
    /* A publisher is sent nothing longer than 127 octets. */
    while (each->held - at >= 2 && each->held - at >= 2u + each->input[at + 1]) {
        acknowledged += each->input[at] >> 4 == PUBACK;
        at += 2 + each->input[at + 1];
    }
    memmove(each->input, each->input + at, each->held - at);
    each->held -= at;
    each->unacknowledged -= acknowledged;
    return acknowledged;
}

int main(int arguments, char **given) {
    if (arguments < 9) { fputs("see the head of load_generator.c\n", stderr); return 2; }
    long first = atol(given[4]), count = atol(given[5]), window = atol(given[8]);
    double rate = atof(given[6]);
    int connections = atoi(given[7]);
    if (connections < 1 || connections > MOST_CONNECTIONS || window < 1) return 2;
    struct record *records = read_records(given[3], first, count);
    struct connection *all = calloc(connections, sizeof *all);
    int64_t *stamps = calloc(count, sizeof *stamps);
    struct pollfd polled[MOST_CONNECTIONS];
    for (int i = 0; i < connections; i++) open_connection(all + i, given[1], atoi(given[2]), i);
    long sent = 0, acknowledged = 0;
    int64_t began = wall_ns(), moved = began;
    while (acknowledged < count) {
        int64_t now = wall_ns();
        if (now - moved > (int64_t)GIVE_UP_S * 1000000000) break;
        long due = rate > 0 ? (long)((now - began) / 1e9 * rate) : count;
        if (due > count) due = count;
        while (sent < due) {
            struct connection *next = all + sent % connections;
            if (next->unacknowledged >= window || !append(next, records + sent)) break;
            stamps[sent++] = now;
        }
        for (int i = 0; i < connections; i++) {
            flush(all + i);
            polled[i].fd = all[i].socket;
            polled[i].events = POLLIN | (all[i].begin < all[i].end ? POLLOUT : 0);
        }
        poll(polled, connections, rate > 0 && sent < count ? 1 : 50);
        for (int i = 0; i < connections; i++) {
            if (!(polled[i].revents & (POLLIN | POLLHUP | POLLERR))) continue;
            long more = receive(all + i);
            acknowledged += more;
            if (more) moved = now;
        }
    }
    double elapsed = (wall_ns() - began) / 1e9;
    if (arguments > 9) {
        FILE *file = fopen(given[9], "wb");
        if (!file || fwrite(stamps, sizeof *stamps, count, file) != (size_t)count || fclose(file))
            fail(given[9]);
    }
    printf("{\"sent\": %ld, \"acknowledged\": %ld, \"elapsed_s\": %.6f, \"cpu_s\": %.6f}\n", sent,
           acknowledged, elapsed, cpu_s());
    return acknowledged < count;
}
