/* A program compiled with threads, checked against itself on one thread. NAME, INPUT, OUTPUT and WEIGHTS (sizes in
 * bytes) are defined by the compiler's command line; argument "fork": also in a child process. */
#define _DEFAULT_SOURCE
#include <fenv.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "net_pool.h"

#define CHECK(condition) do { if (!(condition)) { fprintf(stderr, "line %d: %s\n", __LINE__, #condition); exit(1); } } while (0)

static void *weights, *input, *wanted;
static size_t calls;

static void *block(size_t size) {
    void *memory = NULL;
    CHECK(posix_memalign(&memory, NET_ALIGN, size + 1) == 0);
    memset(memory, 0x7f, size + 1);
    return memory;
}

/* Output of one run, with these threads. */
static void *run(const net_threads *threads) {
    void *state = block(NET_STATE_BYTES), *scratch = block(NET_SCRATCH_BYTES), *output = block(OUTPUT);
    net_inputs in = {(const float *)input, threads};
    net_outputs out = {(float *)output};
    CHECK(net_init(state, weights) == 0);
    CHECK(net_run(state, scratch, weights, &in, &out) == 0);
    free(state); free(scratch);
    return output;
}

static void same(const net_threads *threads) {
    void *got = run(threads);
    CHECK(memcmp(got, wanted, OUTPUT) == 0);
    free(got);
}

typedef struct { size_t parts; net_part *part; void *call; } job;

static void *backwards(void *argument) {
    job *j = (job *)argument;
    for (size_t n = j->parts; n-- > 0;) j->part(j->call, n);
    return NULL;
}

/* A parallel_for that runs everything on one fresh thread, last part first. */
static void elsewhere(void *context, size_t parts, net_part *part, void *call) {
    pthread_t thread;
    job j = {parts, part, call};
    CHECK(context == &calls);
    calls++;
    CHECK(pthread_create(&thread, NULL, backwards, &j) == 0 && pthread_join(thread, NULL) == 0);
}

static void *user(void *pool) {
    for (int n = 0; n < 10; n++) same(&((net_pool *)pool)->threads);
    return NULL;
}

int main(int argc, char **argv) {
    (void)argv;
    static net_pool pool;
    FILE *file = fopen("net.weights", "rb");
    weights = block(WEIGHTS);
    CHECK(file && fread(weights, 1, WEIGHTS, file) == WEIGHTS);
    input = block(INPUT);
    CHECK(fread(input, 1, INPUT, stdin) == INPUT);
    wanted = run(NULL);

    net_threads own = {elsewhere, &calls};
    same(&own);
    CHECK(calls > 0);
    void *const nearest = wanted;
    CHECK(fesetround(FE_UPWARD) == 0);
    wanted = run(NULL);
    CHECK(memcmp(nearest, wanted, OUTPUT) != 0);
    same(&own);
    CHECK(fesetround(FE_TONEAREST) == 0);
    free(wanted);
    wanted = nearest;

    for (int threads = 1; threads <= NET_THREADS + 1; threads++) {
        for (int n = 0; n < 3; n++) {
            const int count = net_pool_start(&pool, threads);
            CHECK(count == (threads < NET_THREADS ? threads : NET_THREADS));
            if (n) same(&pool.threads);
            net_pool_stop(&pool);
        }
    }
    CHECK(net_pool_start(&pool, NET_THREADS) == NET_THREADS);
    pthread_t users[3];
    for (int n = 0; n < 3; n++) CHECK(pthread_create(&users[n], NULL, user, &pool) == 0);
    user(&pool);
    for (int n = 0; n < 3; n++) CHECK(pthread_join(users[n], NULL) == 0);
    if (argc > 1) {
        const pid_t child = fork();
        int status = -1;
        if (child == 0) {
            same(&pool.threads);
            net_pool_stop(&pool);
            static net_pool fresh;
            CHECK(net_pool_start(&fresh, 2) == 2);
            same(&fresh.threads);
            net_pool_stop(&fresh);
            _exit(0);
        }
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        same(&pool.threads);
    }
    net_pool_stop(&pool);
    free(weights); free(input); free(wanted);
    fclose(file);
    return 0;
}
