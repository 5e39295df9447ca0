//! LP60xx: livepatch.toml, and what it expects of the build.

use super::Severity::{Broken, Refused};

codes! {
    LP6001 {
        class: Broken,
        title: "livepatch.toml is not TOML",
        why: "The file does not parse: a quote or bracket is open, a key is given twice, or it is not UTF-8.",
        advice: "correct the marked place; https://toml.io describes the format",
    }
    LP6002 {
        class: Broken,
        title: "unknown key in livepatch.toml",
        why: "A key that is not known would have no effect, and most of them are misspelt ones that should have had one.",
        advice: "docs/livepatch.md lists all keys, `lpbuild init` writes a file with each of them",
    }
    LP6003 {
        class: Broken,
        title: "a value of the wrong type in livepatch.toml",
        why: "Each key has one type: string, list of strings, number or true and false.",
        advice: "docs/livepatch.md has the type and an example of each key",
    }
    LP6004 {
        class: Broken,
        title: "something that livepatch.toml must say is missing",
        why: "A patch needs a name and at least one patch file; a signature needs key and certificate.",
        advice: "add the key; `lpbuild init` writes a complete file",
    }
    LP6005 {
        class: Broken,
        title: "a value in livepatch.toml is not possible",
        why: "The type is right, but the value is outside of what the key can mean.",
        advice: "docs/livepatch.md says which values a key takes",
    }
    LP6006 {
        class: Broken,
        title: "a file or folder to build from is not there",
        why: "Relative paths in livepatch.toml start from the folder of livepatch.toml, on the command line from the current one.",
        advice: "correct the path; parts of the kernel that are left out are found by themselves",
    }
    LP6008 {
        class: Refused,
        title: "more changes than expected",
        why: "functions = [...] in livepatch.toml names everything that may change. Another function changed too: it contains the \
              changed code through inlining, or the patch does more than it was meant to.",
        advice: "look at why the report says it changed; add it to functions when that is right",
    }
    LP6009 {
        class: Refused,
        title: "less changes than expected",
        why: "functions = [...] in livepatch.toml names everything that must change. A function with no change was inlined into \
              its callers, is named otherwise (a system call foo is __do_sys_foo), or is not changed by this patch on this kernel.",
        advice: "compare with the functions the report says changed, and correct functions",
    }
    LP6010 {
        class: Refused,
        title: "there is a livepatch.toml already",
        why: "lpbuild init would overwrite what was written there.",
        advice: "name another folder, or overwrite it with --force",
    }
}
