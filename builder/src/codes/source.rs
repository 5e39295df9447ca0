//! LP62xx: finding a kernel's parts, preparing its tree, compiling.

use super::Severity::{Broken, Refused};

codes! {
    LP6201 {
        class: Broken,
        title: "the cache cannot be used",
        why: "Prepared trees, sources and packages are kept in $XDG_CACHE_HOME/lpbuild or ~/.cache/lpbuild, which must be \
              writable and have a path that make can handle.",
        advice: "set XDG_CACHE_HOME to another folder, or remove the damaged part with lpbuild cache remove",
    }
    LP6202 {
        class: Refused,
        title: "no such entry in the cache, or one in use",
        why: "lpbuild cache remove takes the names that lpbuild cache lists, and leaves alone what a running build holds locked.",
        advice: "look at the list, or wait for the other build to end",
    }
    LP6203 {
        class: Broken,
        title: "a part of the kernel cannot be found by itself",
        why: "On Debian and Ubuntu image, headers, source and configuration are taken from the installed packages or from the \
              archive; elsewhere nothing says where they are.",
        advice: "name image, headers, source and configuration with --image, --headers, --source and --config",
    }
    LP6204 {
        class: Broken,
        title: "the archive has no such package",
        why: "The distribution's archive keeps only a few versions of each kernel, and only the ones it lists can be fetched. apt knows \
              what it lists since its last update; without one, or without the network, it knows none.",
        advice: "run apt-get update with the network up, check the release and apt's sources; or name the files with --image, --headers, --source \
                 and --config",
    }
    LP6205 {
        class: Broken,
        title: "fetching or unpacking a package failed",
        why: "apt-get, dpkg-deb or tar ended with an error; the end of its output is shown.",
        advice: "look at the end of its output: network, free space, apt's sources; what was begun is removed",
    }
    LP6206 {
        class: Refused,
        title: "parts of different kernels",
        why: "Image, headers, source and configuration must be those of one build; the image decides. Where the versions \
              agree, the code itself is compared later (run-pre matching), so this only finds mistakes sooner.",
        advice: "give parts of one build, or leave them out to have them found",
    }
    LP6207 {
        class: Broken,
        title: "not the compiler the kernel was built with",
        why: "Only the same compiler makes the same code. CONFIG_CC_VERSION_TEXT names it, and its --version must agree.",
        advice: "install that compiler (on Debian the package of its name), or name it with --compiler or CC",
    }
    LP6208 {
        class: Broken,
        title: "the source tree cannot be used",
        why: "The kernel is built outside its source, which kbuild allows only for a clean tree (outputmakefile in the top \
              Makefile), in a folder whose path has no blanks and colons.",
        advice: "give the folder of a clean kernel source: `make mrproper` cleans one that was built in",
    }
    LP6209 {
        class: Broken,
        title: "a build tool is missing",
        why: "Preparing a kernel tree runs make, flex, bison, bc, perl, binutils, and pahole for kernels with BTF \
              (Documentation/process/changes.rst).",
        advice: "install it; on Debian: apt-get install bc binutils bison dwarves flex libelf-dev libssl-dev make perl",
    }
    LP6210 {
        class: Refused,
        title: "the source does not keep the configuration",
        why: "olddefconfig dropped options the running kernel was built with, because this source or these tools do not \
              have them; objects made so would not match.",
        advice: "give the source of this very kernel; for options of BTF install pahole (dwarves), for others the named tool",
    }
    LP6211 {
        class: Broken,
        title: "preparing the build folder failed",
        why: "kbuild's olddefconfig, prepare or modules_prepare ended with an error; the end of its output is shown.",
        advice: "look at the end of its output; a missing header means a missing -dev package (libelf-dev, libssl-dev)",
    }
    LP6212 {
        class: Broken,
        title: "kbuild gave an unknown answer",
        why: "lpbuild asks the kernel's own build system how objects are made; its answer has another form than that of \
              5.15 to 6.12.",
        advice: "report this with the kernel's version",
    }
    LP6213 {
        class: Broken,
        title: "an object does not compile",
        why: "The compiler or objtool ended with an error, or objtool gave up with a warning and made none of the tables that the \
              kernel reads of all code; the end of its output is shown.",
        advice: "correct the patch; when the stock source does not compile either, the tools are not those of the kernel",
    }
    LP6214 {
        class: Broken,
        title: "an unchanged header was read in place of the changed one",
        why: "Changed files are put into a folder of links to the source; an #include that leaves a linked folder by `..` \
              leads back to the original.",
        advice: "report this with the patch",
    }
    LP6216 {
        class: Broken,
        title: "no external module is built from the folder",
        why: "--module-source names the source of modules as `make -C HEADERS M=FOLDER` builds them \
              (Documentation/kbuild/modules.rst): its Makefile or Kbuild says obj-m. kbuild is asked about copies of the folder, so \
              that it must not need anything beside it.",
        advice: "name the folder that M= takes, as DKMS builds it: /usr/src/NAME-VERSION",
    }
    LP6217 {
        class: Refused,
        title: "dkms.conf makes the modules in another way",
        why: "DKMS reads dkms.conf before it calls make: PRE_BUILD and PATCH change the sources, and MAKE may give flags and variables, so \
              that code is made of which the folder as it is tells nothing; a change of that would be missed. Followed are lines that \
              call kbuild with plain variables: make -C $kernel_source_dir M=$dkms_tree/$module/$module_version/build NAME=VALUE; \
              and those that leave it to the folder's own Makefile, where that does nothing but call kbuild with $(MAKE).",
        advice: "copy the folder without dkms.conf, do there what it does before make, let the Makefile's part for kbuild say what its MAKE \
                 line does, and name the copy with --module-source; that its objects are those of the installed module is proven as ever",
    }
    LP6215 {
        class: Broken,
        title: "interrupted",
        why: "A signal asked lpbuild to end (SIGINT, SIGTERM or SIGHUP); what was begun was put away.",
        advice: "start it again: it goes on with what is in the cache",
    }
}
