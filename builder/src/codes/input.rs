//! LP10xx, LP11xx: input that cannot be read.

use super::Severity::Broken;

codes! {
    LP1000 {
        class: Broken,
        title: "internal error",
        why: "lpbuild reached a state its authors did not foresee.",
        advice: "report this with the input that caused it",
    }
    LP1001 {
        class: Broken,
        title: "cannot read or write",
        why: "Reading or writing failed for a reason that has no code of its own: a device or network file system that fails, input that is longer than any of its kind.",
        advice: "see what the system says of it (dmesg, df), or copy the files to a local disk and try again",
    }
    LP1002 {
        class: Broken,
        title: "not an x86-64 ELF relocatable object",
        why: "lpbuild diff takes ET_REL objects for EM_X86_64 (ELF64, little endian), as kbuild leaves them beside each source file.",
        advice: "give the .o files of an x86-64 kernel build",
    }
    LP1003 {
        class: Broken,
        title: "malformed ELF",
        why: "A header, section, symbol or relocation points outside its table or contradicts another.",
        advice: "rebuild the object; it is truncated or damaged",
    }
    LP1004 {
        class: Broken,
        title: "no such file or folder",
        why: "A path leads nowhere: the file does not exist, or a folder on the way to it (errno(3): ENOENT).",
        advice: "check the spelling; relative paths count from the current folder, in livepatch.toml from its own, and the folder of an output file must be there before",
    }
    LP1005 {
        class: Broken,
        title: "not allowed to read or write",
        why: "The permissions of the file or of a folder on the way to it, or those of the file system, do not allow it (EACCES, EPERM, EROFS).",
        advice: "run as a user who may (the commands for the target need root), change the permissions, or name another place; XDG_CACHE_HOME moves the cache, TMPDIR the working files",
    }
    LP1006 {
        class: Broken,
        title: "no space left",
        why: "The file system is full, a quota is used up, or the file would be larger than is allowed (ENOSPC, EDQUOT, EFBIG).",
        advice: "free space there, or name another place; lpbuild cache shows and removes what can be made again, XDG_CACHE_HOME moves it, TMPDIR the working files",
    }
    LP1007 {
        class: Broken,
        title: "another kind of file",
        why: "A folder stands where a file is meant or the other way round, or the path leads to a device, a socket or a pipe (EISDIR, ENOTDIR).",
        advice: "name a regular file where one is asked for, and a folder where a folder is",
    }
    LP1008 {
        class: Broken,
        title: "a path that make cannot handle",
        why: "kbuild works in a folder below TMPDIR, and make takes blanks and colons in a path for the end of it.",
        advice: "set TMPDIR to a folder that has neither in its path",
    }
    LP1101 {
        class: Broken,
        title: "manifest.toml is not valid",
        why: "The manifest does not parse, has an unknown or missing key, or a value outside its range (docs/manifest.md).",
        advice: "write it again with lpbuild diff; manifests are not edited by hand",
    }
    LP1102 {
        class: Broken,
        title: "no such code",
        why: "lpbuild explain takes a code that an error printed.",
        advice: "run lpbuild explain without a code for the list",
    }
    LP1103 {
        class: Broken,
        title: "the output folder is no patch folder",
        why: "An output folder is replaced as a whole, so what is there must be a patch folder of lpbuild, or nothing.",
        advice: "name another folder, or empty this one",
    }
    LP1104 {
        class: Broken,
        title: "the command line is not valid",
        why: "An option or argument is unknown, missing, has a bad value, or contradicts another one.",
        advice: "see lpbuild COMMAND --help",
    }
    LP1111 {
        class: Broken,
        title: "no such symbol",
        why: "Neither the patch nor the objects it was made of have a function or object of this name.",
        advice: "see lpbuild inspect for the names of a module, or name another symbol",
    }
    LP1112 {
        class: Broken,
        title: "why.json is not valid",
        why: "What a patch folder or a module keeps for lpbuild why does not parse, is of another schema, or was written for another patch.o.",
        advice: "build the patch again; without the file, pack and why go by the manifest alone",
    }
    LP1113 {
        class: Broken,
        title: "the report would replace something else",
        why: "A report replaces an earlier report of lpbuild and nothing else.",
        advice: "name another file with --report, or remove this one",
    }
}
