/* Counts the calls by which a program changes what lies below a folder, and lets one of them fail or kill the program.

   Preloaded, it stands between the program and the C library. `faults_begin` starts to count; the call of number `at`
   and, if `onward`, those after it do not happen. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KILL -1
#define MOST 4096

static char root[PATH_MAX];
static long at = -1, count;
static int fault, onward, counting;
static const char *names[MOST];

void faults_begin(const char *folder, long number, int what, int stays)
{
    snprintf(root, sizeof root, "%s/", folder);
    at = number, fault = what, onward = stays, count = 0, counting = 1;
}

long faults_end(void) { counting = 0; return count; }

const char *faults_name(long number) { return number < MOST ? names[number] : "?"; }

static int below(int folder, const char *path)
{
    char whole[PATH_MAX] = "", link[64];
    if (path == NULL || path[0] != '/') {
        snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
        ssize_t size = readlink(link, whole, sizeof whole - 2);
        if (size < 0) return 0;
        whole[size] = '/', whole[size + 1] = 0;
        path = whole;
    }
    return strncmp(path, root, strlen(root)) == 0;
}

/* Counts a call; returns whether it is to fail. */
static int fails(const char *name, int folder, const char *path)
{
    if (!counting || !below(folder, path)) return 0;
    long number = count++;
    if (number < MOST) names[number] = name;
    if (at < 0 || (number != at && !(onward && number > at))) return 0;
    /* A full disk refuses what needs room. */
    if (fault == ENOSPC && (strcmp(name, "unlink") == 0 || strcmp(name, "rmdir") == 0 || strcmp(name, "chmod") == 0))
        return 0;
    if (fault == KILL && strcmp(name, "write") != 0) kill(getpid(), SIGKILL);
    errno = fault;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int file, const void *data, size_t size)
{
    int first = at >= 0 && count == at;
    if (!fails("write", file, NULL)) return REAL(write)(file, data, size);
    /* Half of it arrives: before the process dies, or before the disk is full and the rest is refused. */
    if (fault == KILL || (fault == ENOSPC && first && size > 1)) {
        ssize_t done = REAL(write)(file, data, size / 2);
        if (fault == KILL) kill(getpid(), SIGKILL);
        return done;
    }
    errno = fault;
    return -1;
}

static int opened(const char *which, int folder, const char *path, int flags, int mode)
{
    if ((flags & (O_CREAT | O_TRUNC)) && fails("open", folder, path)) return -1;
    int (*real)(int, const char *, int, ...) = dlsym(RTLD_NEXT, which);
    return real(folder, path, flags, mode);
}

#define MODE(flags) \
    int mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, int); va_end(more); }

int open(const char *path, int flags, ...) { MODE(flags) return opened("openat", AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened("openat64", AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags) return opened("openat", folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags) return opened("openat64", folder, path, flags, mode); }

#define ONE(name, kind) \
    int name(const char *path) { return fails(kind, AT_FDCWD, path) ? -1 : REAL(name)(path); }
#define WITH_MODE(name, kind) \
    int name(const char *path, mode_t mode) { return fails(kind, AT_FDCWD, path) ? -1 : REAL(name)(path, mode); }

ONE(unlink, "unlink")
ONE(rmdir, "rmdir")
WITH_MODE(mkdir, "mkdir")
WITH_MODE(chmod, "chmod")

int mkdirat(int folder, const char *path, mode_t mode)
{
    return fails("mkdir", folder, path) ? -1 : REAL(mkdirat)(folder, path, mode);
}

int fchmodat(int folder, const char *path, mode_t mode, int flags)
{
    return fails("chmod", folder, path) ? -1 : REAL(fchmodat)(folder, path, mode, flags);
}

int unlinkat(int folder, const char *path, int flags)
{
    return fails(flags & AT_REMOVEDIR ? "rmdir" : "unlink", folder, path) ? -1 : REAL(unlinkat)(folder, path, flags);
}

int link(const char *from, const char *to) { return fails("link", AT_FDCWD, to) ? -1 : REAL(link)(from, to); }
int rename(const char *from, const char *to) { return fails("rename", AT_FDCWD, to) ? -1 : REAL(rename)(from, to); }

int renameat(int one, const char *from, int other, const char *to)
{
    return fails("rename", other, to) ? -1 : REAL(renameat)(one, from, other, to);
}

int renameat2(int one, const char *from, int other, const char *to, unsigned flags)
{
    return fails("exchange", other, to) ? -1 : REAL(renameat2)(one, from, other, to, flags);
}

int ftruncate64(int file, off64_t size) { return fails("truncate", file, NULL) ? -1 : REAL(ftruncate64)(file, size); }
int fsync(int file) { return fails("fsync", file, NULL) ? -1 : REAL(fsync)(file); }
int fdatasync(int file) { return fails("fsync", file, NULL) ? -1 : REAL(fdatasync)(file); }
