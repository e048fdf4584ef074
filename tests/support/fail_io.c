/* Lets the n-th call fail that changes or opens something below a folder: to be preloaded.
 *
 * FAIL_BELOW: the folder. FAIL_AT: which call, from 1; 0 for none. FAIL_WITH: the errno. FAIL_COUNT: a file that gets the
 * number of such calls at the end. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int calls;

static int is_below(const char *path) {
    const char *folder = getenv("FAIL_BELOW");
    return folder && path && strncmp(path, folder, strlen(folder)) == 0;
}

static int is_file_below(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len < 0) return 0;
    path[len] = 0;
    return is_below(path);
}

static int fails(int below) {
    if (!below) return 0;
    const char *at = getenv("FAIL_AT"), *with = getenv("FAIL_WITH");
    if (++calls != (at ? atoi(at) : 0)) return 0;
    errno = with ? atoi(with) : EIO;
    return 1;
}

__attribute__((destructor)) static void tell(void) {
    FILE *count = getenv("FAIL_COUNT") ? fopen(getenv("FAIL_COUNT"), "w") : NULL;
    if (count) {
        fprintf(count, "%d\n", calls);
        fclose(count);
    }
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int file, const void *bytes, size_t len) {
    return fails(is_file_below(file)) ? -1 : NEXT(write)(file, bytes, len);
}
ssize_t pwrite64(int file, const void *bytes, size_t len, off64_t at) {
    return fails(is_file_below(file)) ? -1 : NEXT(pwrite64)(file, bytes, len, at);
}
int fsync(int file) { return fails(is_file_below(file)) ? -1 : NEXT(fsync)(file); }
int fdatasync(int file) { return fails(is_file_below(file)) ? -1 : NEXT(fdatasync)(file); }
int ftruncate64(int file, off64_t len) { return fails(is_file_below(file)) ? -1 : NEXT(ftruncate64)(file, len); }
int rename(const char *from, const char *to) { return fails(is_below(to)) ? -1 : NEXT(rename)(from, to); }
int unlink(const char *path) { return fails(is_below(path)) ? -1 : NEXT(unlink)(path); }
int mkdir(const char *path, mode_t mode) { return fails(is_below(path)) ? -1 : NEXT(mkdir)(path, mode); }

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return fails(is_below(path)) ? -1 : NEXT(open64)(path, flags, mode);
}
