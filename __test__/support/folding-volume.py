"""A volume as most Macs have it: it keeps names as they are given, and finds them in any case and in either way to write a
letter. What it holds lies in an ordinary folder.

    python folding-volume.py FOLDER MOUNT_POINT              until it is unmounted
    python folding-volume.py FOLDER MOUNT_POINT --plain      as one that knows only plain renames

Needs FUSE 3 and mfusepy. Only for tests: it is slow, and trusts that nobody else works in the folder.
"""

import ctypes
import errno
import os
import sys
import unicodedata

import mfusepy

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100


def fold(name):
    composed = unicodedata.normalize("NFC", name)
    return unicodedata.normalize("NFC", composed.casefold())


def timed(stat):
    names = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_ino", "st_blocks")
    times = {f"st_{name}": getattr(stat, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")}
    return {name: getattr(stat, name) for name in names} | times


class FoldingVolume(mfusepy.Operations):
    use_ns = True

    def __init__(self, folder):
        self.folder = folder

    def real(self, path):
        """Where the entry lies that a path finds; where none does, the path as it is given."""
        at = self.folder
        for name in filter(None, path.split("/")):
            given = os.path.join(at, name)
            if os.path.lexists(given) or not os.path.isdir(at):
                at = given
                continue
            same = [other for other in os.listdir(at) if fold(other) == fold(name)]
            at = os.path.join(at, same[0]) if same else given
        return at

    def getattr(self, path, fh=None):
        return timed(os.lstat(self.real(path)))

    def readdir(self, path, fh):
        folder = self.real(path)
        yield from (".", "..")
        for name in os.listdir(folder):
            yield name, timed(os.lstat(os.path.join(folder, name))), 0

    def readlink(self, path):
        return os.readlink(self.real(path))

    def mkdir(self, path, mode):
        os.mkdir(self.real(path), mode)

    def rmdir(self, path):
        os.rmdir(self.real(path))

    def unlink(self, path):
        os.unlink(self.real(path))

    def symlink(self, path, target):
        os.symlink(target, self.real(path))

    def link(self, path, existing):
        os.link(self.real(existing), self.real(path), follow_symlinks=False)

    def rename(self, old, new, flags=0):
        if flags and "--plain" in sys.argv:
            raise OSError(errno.EINVAL, "renameat2")
        old, new = self.real(old), os.path.join(os.path.dirname(self.real(new)), os.path.basename(new))
        existing = self.real(os.path.relpath(new, self.folder))
        # Onto another entry, that one's name stays; onto itself, the entry takes the new name.
        if existing != old:
            new = existing
        if libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags):
            raise OSError(ctypes.get_errno(), "renameat2")

    def chmod(self, path, mode):
        os.chmod(self.real(path), mode)

    def chown(self, path, uid, gid):
        os.chown(self.real(path), uid, gid, follow_symlinks=False)

    def truncate(self, path, length, fh=None):
        os.truncate(self.real(path), length)

    def utimens(self, path, times=None):
        os.utime(self.real(path), ns=times and tuple(map(int, times)), follow_symlinks=False)

    def create(self, path, mode, fi=None):
        return os.open(self.real(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def open(self, path, flags):
        return os.open(self.real(path), flags & ~(os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL))

    def read(self, path, size, offset, fh):
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        return os.pwrite(fh, data, offset)

    def release(self, path, fh):
        os.close(fh)

    def statfs(self, path):
        stat = os.statvfs(self.folder)
        return {name: getattr(stat, name) for name in dir(stat) if name.startswith("f_")}

    def getxattr(self, path, name, position=0):
        return os.getxattr(self.real(path), name, follow_symlinks=False)

    def setxattr(self, path, name, value, options, position=0):
        os.setxattr(self.real(path), name, value, options, follow_symlinks=False)

    def listxattr(self, path):
        return os.listxattr(self.real(path), follow_symlinks=False)

    def removexattr(self, path, name):
        os.removexattr(self.real(path), name, follow_symlinks=False)


class Fuse(mfusepy.FUSE):
    def rename_fuse_3(self, old, new, flags):
        """As the library's, which drops the flags: without them two names cannot change places."""
        self.operations.rename(*(path.decode(self.encoding, self.errors) for path in (old, new)), flags)
        return 0


# FUSE 2 drops the flags of a rename.
assert mfusepy.fuse_version_major == 3, "FUSE 3 is needed"
# Nothing is kept by name in the kernel, which knows nothing of name collisions.
uncached = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0}
Fuse(FoldingVolume(sys.argv[1]), sys.argv[2], foreground=True, nothreads=True, use_ino=True, allow_other=True, **uncached)
