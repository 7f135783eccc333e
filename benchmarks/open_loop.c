/* Sends prepared requests over HTTP/1.1, each at its instant, and keeps what is answered.
 *
 *   open_loop HOST PORT REQUESTS COUNT CONNECTIONS LAST_S ANSWERS
 *
 * REQUESTS is a series of COUNT records in the order of their instants: the instant, nanoseconds from
 * the beginning (8 octets), the request's length (4 octets), the request. A request goes out at its
 * instant or, when every connection waits for an answer, as soon as one is free, the longest idle one
 * first. ANSWERS receives, in the same order: nanoseconds from the instant to the answer's end (8
 * octets), status (4), the body's length (4), the body. Numbers are little-endian. What is not answered
 * LAST_S seconds after the last instant is lost. Standard output: one line of JSON. Exit status 0 when
 * no connection was closed and the answers are written; `missing` says how many there are not.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cpu.h"

enum { INPUT = 1 << 16, MOST_CONNECTIONS = 64, SECOND = 1000000000 };

struct request {
    int64_t due_ns;
    uint32_t length;
    char *octets;
};

struct answer {
    int64_t took_ns;
    uint32_t status, length;
    char *body;
};

struct connection {
    int socket;
    long place; /* of the request that it waits for; -1: none */
    size_t held;
    char input[INPUT + 1];
};

/* Connections that wait for nothing, the longest idle first. */
static int idle[MOST_CONNECTIONS];
static int first_idle, idles;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void *memory(size_t octets) {
    void *found = calloc(1, octets ? octets : 1);
    if (!found) fail("memory");
    return found;
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SECOND + now.tv_nsec;
}

static struct request *read_requests(const char *path, long count) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(path);
    struct request *all = memory(count * sizeof *all);
    for (long place = 0; place < count; place++) {
        struct request *each = all + place;
        if (fread(&each->due_ns, 8, 1, file) != 1 || fread(&each->length, 4, 1, file) != 1) fail(path);
        each->octets = memory(each->length);
        if (fread(each->octets, 1, each->length, file) != each->length) fail(path);
    }
    fclose(file);
    return all;
}

static void write_answers(const char *path, const struct answer *all, long count) {
    FILE *file = fopen(path, "wb");
    if (!file) fail(path);
    for (long place = 0; place < count; place++) {
        const struct answer *each = all + place;
        if (fwrite(&each->took_ns, 8, 1, file) != 1 || fwrite(&each->status, 4, 1, file) != 1 ||
            fwrite(&each->length, 4, 1, file) != 1 ||
            fwrite(each->body, 1, each->length, file) != each->length)
            fail(path);
    }
    if (fclose(file)) fail(path);
}

static int connected(const char *host, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, made = socket(AF_INET, SOCK_STREAM, 0);
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) { fputs("give an IPv4 address\n", stderr); exit(2); }
    if (connect(made, (struct sockaddr *)&address, sizeof address)) fail("connect");
    setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return made;
}

static void set_idle(int connection) { idle[(first_idle + idles++) % MOST_CONNECTIONS] = connection; }

static int take_idle(void) {
    int taken = idle[first_idle];
    first_idle = (first_idle + 1) % MOST_CONNECTIONS;
    idles--;
    return taken;
}

/* True when the answer is whole; a server that says no length is not measured. */
static int whole(struct connection *each, struct answer *answer) {
    each->input[each->held] = 0;
    char *end = strstr(each->input, "\r\n\r\n");
    if (!end) return 0;
    char *length = strcasestr(each->input, "\r\ncontent-length:");
    if (!length || length > end) { fputs("an answer has no length\n", stderr); exit(1); }
    size_t head = end + 4 - each->input, body = strtoul(length + 17, NULL, 10);
    if (head + body > INPUT) { fputs("an answer is too long\n", stderr); exit(1); }
    if (each->held < head + body) return 0;
    answer->status = strtoul(each->input + 9, NULL, 10);
    answer->length = body;
    answer->body = memory(body);
    memcpy(answer->body, each->input + head, body);
    return 1;
}

/* True when that answers the request that the connection waited for. */
static int receive(struct connection *each, struct answer *answers) {
    ssize_t more = recv(each->socket, each->input + each->held, INPUT - each->held, MSG_DONTWAIT);
    if (more < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (more <= 0 || each->place < 0) { fputs("A connection was closed.\n", stderr); exit(1); }
    each->held += more;
    return whole(each, answers + each->place);
}

int main(int arguments, char **given) {
    if (arguments != 8) { fputs("see the head of open_loop.c\n", stderr); return 2; }
    long count = atol(given[4]);
    int connections = atoi(given[5]);
    if (count < 1 || connections < 1 || connections > MOST_CONNECTIONS) return 2;
    struct request *requests = read_requests(given[3], count);
    struct answer *answers = memory(count * sizeof *answers);
    struct connection *all = memory(connections * sizeof *all);
    struct pollfd polled[MOST_CONNECTIONS];
    for (int i = 0; i < connections; i++) {
        polled[i].fd = all[i].socket = connected(given[1], atoi(given[2]));
        polled[i].events = POLLIN;
        all[i].place = -1;
        set_idle(i);
    }
    long next = 0, missing = count;
    double cpu_before_s = cpu_s();
    int64_t began = now_ns(), last = requests[count - 1].due_ns + (int64_t)(atof(given[6]) * SECOND);
    while (missing) {
        int64_t now = now_ns() - began;
        if (now > last) break;
        for (; next < count && requests[next].due_ns <= now && idles; next++) {
            struct connection *each = all + take_idle();
            each->place = next;
            each->held = 0;
            ssize_t sent = send(each->socket, requests[next].octets, requests[next].length, MSG_NOSIGNAL);
            if (sent != requests[next].length) fail("A connection was closed");
        }
        int64_t until = next < count && idles ? requests[next].due_ns : last;
        int64_t wait = until > now ? until - now : 0;
        struct timespec timeout = {.tv_sec = wait / SECOND, .tv_nsec = wait % SECOND};
        ppoll(polled, connections, &timeout, NULL);
        for (int i = 0; i < connections; i++) {
            if (!(polled[i].revents & (POLLIN | POLLHUP | POLLERR))) continue;
            if (!receive(all + i, answers)) continue;
            answers[all[i].place].took_ns = now_ns() - began - requests[all[i].place].due_ns;
            all[i].place = -1;
            set_idle(i);
            missing--;
        }
    }
    double elapsed_s = (now_ns() - began) / 1e9, used_s = cpu_s() - cpu_before_s;
    write_answers(given[7], answers, count);
    printf("{\"missing\": %ld, \"elapsed_s\": %.6f, \"cpu_s\": %.6f}\n", missing, elapsed_s, used_s);
    return 0;
}
