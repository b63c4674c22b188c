// Preloaded into a program: journals what it does to the files under POWER_CUT_ROOT, in the order of the system calls.
// A record: kind, length of the path, offset, length of the data (native byte order), then path and data.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static ssize_t (*real_write)(int, const void *, size_t);
static int journal = -1;
static char root[4096];
static size_t root_length;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    real_write = REAL(write);
    snprintf(root, sizeof root, "%s/", getenv("POWER_CUT_ROOT"));
    root_length = strlen(root);
    journal = REAL(open)(getenv("POWER_CUT_JOURNAL"), O_WRONLY | O_CREAT | O_APPEND, 0644);
}

static void record(char kind, const char *path, int64_t offset, const void *data, size_t size) {
    struct { int64_t kind, path_length, offset, size; } head = {kind, (int64_t)strlen(path), offset, (int64_t)size};
    real_write(journal, &head, sizeof head);
    real_write(journal, path, strlen(path));
    if (size) real_write(journal, data, size);
}

static int is_ours(const char *path) {
    return !strncmp(path, root, root_length) || (!strncmp(path, root, root_length - 1) && !path[root_length - 1]);
}

static const char *path_of(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, 4095);
    path[length < 0 ? 0 : length] = 0;
    return is_ours(path) && !strstr(path, " (deleted)") ? path : NULL;
}

static ssize_t journaled(ssize_t written, int descriptor, const void *data, int64_t offset) {
    char buffer[4096];
    const char *path = written > 0 ? path_of(descriptor, buffer) : NULL;
    if (path) record('w', path, offset, data, (size_t)written);
    return written;
}

#define LOCKED(type, body) \
    { pthread_mutex_lock(&lock); type result = (body); pthread_mutex_unlock(&lock); return result; }

ssize_t write(int fd, const void *data, size_t size) {
    char buffer[4096];
    if (fd == journal || !path_of(fd, buffer)) return real_write(fd, data, size);
    struct stat about;
    fstat(fd, &about);
    int64_t offset = fcntl(fd, F_GETFL) & O_APPEND ? about.st_size : lseek(fd, 0, SEEK_CUR);
    LOCKED(ssize_t, journaled(real_write(fd, data, size), fd, data, offset))
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
    LOCKED(ssize_t, journaled(REAL(pwrite)(fd, data, size, offset), fd, data, offset))
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
    LOCKED(ssize_t, journaled(REAL(pwrite64)(fd, data, size, offset), fd, data, offset))

static int noted(int result, char kind, int fd, int64_t offset) {
    char buffer[4096];
    const char *path = result ? NULL : path_of(fd, buffer);
    struct stat about;
    if (path && !fstat(fd, &about)) record(S_ISDIR(about.st_mode) ? 'd' : kind, path, offset, NULL, 0);
    return result;
}
int ftruncate(int fd, off_t size) LOCKED(int, noted(REAL(ftruncate)(fd, size), 't', fd, size))
int ftruncate64(int fd, off64_t size) LOCKED(int, noted(REAL(ftruncate64)(fd, size), 't', fd, size))
int fsync(int fd) LOCKED(int, noted(REAL(fsync)(fd), 's', fd, 0))
int fdatasync(int fd) LOCKED(int, noted(REAL(fdatasync)(fd), 's', fd, 0))

static int opened(int fd, int flags) {
    char buffer[4096];
    const char *path = fd >= 0 && flags & O_CREAT ? path_of(fd, buffer) : NULL;
    if (path) record('c', path, 0, NULL, 0);
    return fd;
}
int open(const char *path, int flags, ...) {
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest);
    LOCKED(int, opened(REAL(open)(path, flags, mode), flags))
}
int open64(const char *path, int flags, ...) {
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest);
    LOCKED(int, opened(REAL(open64)(path, flags, mode), flags))
}
int openat(int at, const char *path, int flags, ...) {
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest);
    LOCKED(int, opened(REAL(openat)(at, path, flags, mode), flags))
}
int openat64(int at, const char *path, int flags, ...) {
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest);
    LOCKED(int, opened(REAL(openat64)(at, path, flags, mode), flags))
}

static int named(int result, char kind, const char *path, const char *new_path) {
    if (!result && is_ours(path)) record(kind, path, 0, new_path, new_path ? strlen(new_path) : 0);
    return result;
}
int rename(const char *old, const char *new) LOCKED(int, named(REAL(rename)(old, new), 'r', old, new))
int unlink(const char *path) LOCKED(int, named(REAL(unlink)(path), 'u', path, NULL))
