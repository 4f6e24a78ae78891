/* Loaded before libc (LD_PRELOAD): appends to RECORD_LOG what is written to the regular files in
 * RECORD_DIRECTORY, what is synced, and nothing else. `recording.py` builds it and reads the log.
 *
 * Each entry is one write to the log: kind, inode, place, size, data. The system calls are made
 * directly, so nothing here calls itself.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct __attribute__((packed)) entry {
    char kind;
    uint64_t inode, place, size;
};

static int log_fd = -1;
static const char *directory;

__attribute__((constructor)) static void begin(void)
{
    const char *name = getenv("RECORD_LOG");
    directory = getenv("RECORD_DIRECTORY");
    if (name == NULL || directory == NULL)
        return;
    log_fd = open(name, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (log_fd < 0)
        abort();
}

/* Returns 1 for a file in the directory, 2 for the directory itself, 0 for all else. */
static int is_recorded(int fd, uint64_t *inode)
{
    char link[64], name[PATH_MAX];
    struct stat status;
    if (log_fd < 0 || fd == log_fd || fstat(fd, &status) != 0)
        return 0;
    if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, name, sizeof name - 1);
    if (size < 0)
        return 0;
    name[size] = 0;
    *inode = status.st_ino;
    if (S_ISDIR(status.st_mode))
        return strcmp(name, directory) == 0 ? 2 : 0;
    size_t length = strlen(directory);
    return strncmp(name, directory, length) == 0 && name[length] == '/';
}

static void put(char kind, uint64_t inode, uint64_t place, const struct iovec *data, int count,
                uint64_t size)
{
    struct iovec all[1 + IOV_MAX];
    struct entry head = {kind, inode, place, size};
    uint64_t left = size;
    int used = 1;
    all[0] = (struct iovec){&head, sizeof head};
    /* a write that was cut short has written the first bytes */
    for (int at = 0; at < count && left > 0; at++, used++) {
        all[used] = data[at];
        if (all[used].iov_len > left)
            all[used].iov_len = left;
        left -= all[used].iov_len;
    }
    if (used > IOV_MAX)
        abort();
    if (syscall(SYS_writev, log_fd, all, used) != (ssize_t)(sizeof head + size))
        abort();
}

static void wrote(int fd, const struct iovec *data, int count, uint64_t place, ssize_t size)
{
    uint64_t inode;
    if (size > 0 && is_recorded(fd, &inode) == 1) {
        int is_synced = (fcntl(fd, F_GETFL) & (O_DSYNC | O_SYNC)) != 0;
        put(is_synced ? 'S' : 'W', inode, place, data, count, (uint64_t)size);
    }
}

static off_t place_of(int fd, ssize_t written)
{
    return written > 0 ? (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR) - written : 0;
}

ssize_t write(int fd, const void *data, size_t size)
{
    struct iovec one = {(void *)data, size};
    ssize_t done = syscall(SYS_write, fd, data, size);
    wrote(fd, &one, 1, place_of(fd, done), done);
    return done;
}

ssize_t writev(int fd, const struct iovec *data, int count)
{
    ssize_t done = syscall(SYS_writev, fd, data, count);
    wrote(fd, data, count, place_of(fd, done), done);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t place)
{
    struct iovec one = {(void *)data, size};
    ssize_t done = syscall(SYS_pwrite64, fd, data, size, place);
    wrote(fd, &one, 1, place, done);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t place)
{
    return pwrite64(fd, data, size, place);
}

ssize_t pwritev64(int fd, const struct iovec *data, int count, off64_t place)
{
    ssize_t done = syscall(SYS_pwritev, fd, data, count, place, 0L);
    wrote(fd, data, count, place, done);
    return done;
}

ssize_t pwritev(int fd, const struct iovec *data, int count, off_t place)
{
    return pwritev64(fd, data, count, place);
}

int ftruncate64(int fd, off64_t size)
{
    uint64_t inode;
    int failed = syscall(SYS_ftruncate, fd, size);
    if (!failed && is_recorded(fd, &inode) == 1)
        put('T', inode, size, NULL, 0, 0);
    return failed;
}

int ftruncate(int fd, off_t size)
{
    return ftruncate64(fd, size);
}

/* A file got a name. */
static int named(int failed, const char *name)
{
    struct stat status;
    if (!failed && log_fd >= 0 && stat(name, &status) == 0)
        put('N', status.st_ino, 0, NULL, 0, 0);
    return failed;
}

int rename(const char *old, const char *new)
{
    return named(syscall(SYS_renameat2, AT_FDCWD, old, AT_FDCWD, new, 0), new);
}

int link(const char *old, const char *new)
{
    return named(syscall(SYS_linkat, AT_FDCWD, old, AT_FDCWD, new, 0), new);
}

static int synced(int failed, int fd)
{
    uint64_t inode;
    int kind = failed ? 0 : is_recorded(fd, &inode);
    if (kind)
        put(kind == 1 ? 'F' : 'D', inode, 0, NULL, 0, 0);
    return failed;
}

int fsync(int fd)
{
    return synced(syscall(SYS_fsync, fd), fd);
}

int fdatasync(int fd)
{
    return synced(syscall(SYS_fdatasync, fd), fd);
}
