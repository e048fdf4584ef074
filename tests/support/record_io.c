/* Notes what changes below a folder, in order: to be preloaded. A test makes from it what a power cut may leave.
 *
 * RECORD_BELOW: the folder. RECORD_TO: the file that the notes are appended to, a line each:
 *   new INODE PATH   size INODE LENGTH   write INODE OFFSET HEX   sync INODE   folder-sync PATH
 *   rename FROM TO   link FROM TO   unlink PATH   mkdir PATH
 * Paths are relative to the folder. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const char *below(const char *path) {
    const char *folder = getenv("RECORD_BELOW");
    size_t len = folder ? strlen(folder) : 0;
    if (!len || !path || strncmp(path, folder, len)) return NULL;
    if (path[len] == 0) return ".";
    return path[len] == '/' ? path + len + 1 : NULL;
}

static const char *file_below(int file, char *path, size_t room) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t len = readlink(link, path, room - 1);
    if (len < 0) return NULL;
    path[len] = 0;
    return below(path);
}

static void note(const char *text, size_t len) {
    int to = NEXT(open64)(getenv("RECORD_TO"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (to < 0 || NEXT(write)(to, text, len) != (ssize_t)len) abort();
    close(to);
}

static void notef(const char *format, ...) {
    char line[9000];
    va_list rest;
    va_start(rest, format);
    int len = vsnprintf(line, sizeof line, format, rest);
    va_end(rest);
    note(line, (size_t)len);
}

static unsigned long inode(int file) {
    struct stat64 stat;
    return fstat64(file, &stat) ? 0 : (unsigned long)stat.st_ino;
}

ssize_t write(int file, const void *bytes, size_t len) {
    char path[4096];
    int seen = file_below(file, path, sizeof path) != NULL;
    off64_t at = seen ? lseek64(file, 0, SEEK_CUR) : 0;
    ssize_t written = NEXT(write)(file, bytes, len);
    if (!seen || written <= 0) return written;
    char *line = malloc(2 * (size_t)written + 100);
    int end = sprintf(line, "write %lu %ld ", inode(file), (long)at);
    for (ssize_t i = 0; i < written; i++) end += sprintf(line + end, "%02x", ((const unsigned char *)bytes)[i]);
    line[end++] = '\n';
    note(line, (size_t)end);
    free(line);
    return written;
}

static int synced(int file, int result) {
    char path[4096];
    const char *name = file_below(file, path, sizeof path);
    struct stat64 stat;
    if (result || !name || fstat64(file, &stat)) return result;
    if (S_ISDIR(stat.st_mode)) notef("folder-sync %s\n", name);
    else notef("sync %lu\n", (unsigned long)stat.st_ino);
    return result;
}
int fsync(int file) { return synced(file, NEXT(fsync)(file)); }
int fdatasync(int file) { return synced(file, NEXT(fdatasync)(file)); }

int ftruncate64(int file, off64_t len) {
    char path[4096];
    int result = NEXT(ftruncate64)(file, len);
    if (!result && file_below(file, path, sizeof path)) notef("size %lu %ld\n", inode(file), (long)len);
    return result;
}
int rename(const char *from, const char *to) {
    int result = NEXT(rename)(from, to);
    if (!result && below(to)) notef("rename %s %s\n", below(from), below(to));
    return result;
}
int linkat(int a, const char *from, int b, const char *to, int flags) {
    int result = NEXT(linkat)(a, from, b, to, flags);
    if (!result && below(to)) notef("link %s %s\n", below(from), below(to));
    return result;
}
int unlink(const char *path) {
    int result = NEXT(unlink)(path);
    if (!result && below(path)) notef("unlink %s\n", below(path));
    return result;
}
int mkdir(const char *path, mode_t mode) {
    int result = NEXT(mkdir)(path, mode);
    if (!result && below(path)) notef("mkdir %s\n", below(path));
    return result;
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    const char *name = below(path);
    int is_new = name && (flags & O_CREAT) && access(path, F_OK);
    int file = NEXT(open64)(path, flags, mode);
    if (file < 0 || !name) return file;
    if (is_new) notef("new %lu %s\n", inode(file), name);
    else if (flags & O_TRUNC) notef("size %lu 0\n", inode(file));
    return file;
}
