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
        title: "cannot read or write a file",
        why: "An input or output file could not be opened, read, created or written.",
        advice: "check the path, the permissions and the free space",
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
        advice: "name another folder with -o, or empty this one",
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
