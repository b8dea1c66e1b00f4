/* Holds the namespaces of a pod, and as process 1 of the node those of the cluster:
 * waits for SIGTERM or SIGINT, and reaps the children that others left. */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave(int number) {
    (void)number;
    _exit(0);
}

static void reap(int number) {
    (void)number;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
}

int main(void) {
    struct sigaction on_child = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
    signal(SIGINT, leave);
    signal(SIGTERM, leave);
    if (sigaction(SIGCHLD, &on_child, NULL) != 0) {
        return 1;
    }
    reap(SIGCHLD);
    for (;;) {
        pause();
    }
}
