//! LP61xx: source patches.

use super::Severity::{Broken, Refused};

codes! {
    LP6101 {
        class: Broken,
        title: "not a unified diff that can be read",
        why: "lpbuild build takes unified diffs as git format-patch, git diff, diff -u and quilt write them, with paths one \
              folder deep (-p1). A hunk whose lines do not add up, or that belongs to no file, would be lost without notice.",
        advice: "write the patch again with git format-patch or diff -up; mailers break long lines and spaces",
    }
    LP6102 {
        class: Refused,
        title: "the patch does not apply",
        why: "Every line of context and every removed line must be in the source as the patch shows it; lines may have moved. \
              lpbuild never guesses (no fuzz), because the result is built into a running kernel.",
        advice: "adapt the patch to this version of the source, or check that the source is that of the running kernel",
    }
    LP6103 {
        class: Refused,
        title: "the patch seems to be applied already",
        why: "The patch does not apply, but its reverse does: the source has the change already.",
        advice: "leave the patch out, or give the source of the kernel that runs",
    }
    LP6104 {
        class: Refused,
        title: "the patch removes a file",
        why: "What a removed file defined stays in the running kernel, and a live patch cannot take it away.",
        advice: "leave this part out (--leave-out FILE), or leave the file in place and change the code that uses it",
    }
    LP6105 {
        class: Refused,
        title: "the patch renames or copies a file",
        why: "Functions of a renamed file would have to be matched with those of another object of the running kernel.",
        advice: "leave this part out (--leave-out FILE), or write the change against the file's present name: git format-patch --no-renames, \
                 without the removal",
    }
    LP6106 {
        class: Refused,
        title: "the patch changes a mode or a symbolic link",
        why: "Only the contents of regular files matter to a build; a link can lead to a file outside the source.",
        advice: "leave this part out (--leave-out FILE), or patch the file the link leads to",
    }
    LP6107 {
        class: Refused,
        title: "binary patch",
        why: "A kernel is built from text; a binary part of a patch cannot be compared line by line.",
        advice: "leave this part out (--leave-out FILE)",
    }
    LP6108 {
        class: Refused,
        title: "path leads outside the source",
        why: "A path of a patch is relative to the source folder, behind one leading folder (a/, b/). Absolute paths and \
              .. would reach other files.",
        advice: "make the patch from the top of the kernel source: git diff, or diff -up linux.orig/FILE linux/FILE",
    }
    LP6109 {
        class: Broken,
        title: "nothing to leave out, or nothing left",
        why: "A name given to --leave-out (`leave-out` of livepatch.toml) must be that of a file, of a hunk or of a folder that the patches change: one \
              that leaves nothing out was meant for something else. And something of the patches must be left.",
        advice: "give the path as the patch has it, without a/ and b/; hunks of a file are counted from 1, over all patches in their order",
    }
}
