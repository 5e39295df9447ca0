//! `dkms.conf`: what DKMS does before and beside `make -C HEADERS M=DIR`, by which the objects that run may be others than kbuild makes of
//! the folder as it is.
//!
//! Input: the folder of the sources; its `dkms.conf`, or that of the folder above, whose `MAKE` then names the folder. Output: the
//! variables that its `MAKE` line gives to kbuild, by itself or by the folder's own Makefile. Refused (LP6217): `PRE_BUILD` and `PATCH`, which
//! change the sources, and a `MAKE` line that is none of both. `POST_BUILD` and what comes behind it work on finished modules, and the file that is installed is what a
//! patch is compared with.
//!
//! The file is a script of bash that DKMS reads (dkms(8)); it is not run. Assignments are found wherever they stand, behind conditions as
//! well, and all of one name must say the same; `source` and `eval`, behind which anything can be, are refused.

use std::path::{Path, PathBuf};

use crate::bounded;
use crate::codes;
use crate::error::{Error, Place, Problem, Result, refuse};
use crate::tool::Log;

use super::own_make;

/// The name of the file.
const CONF: &str = "dkms.conf";

/// What kbuild is told by lpbuild, or would make other objects of: not by a line of somebody else.
const OURS: &[&str] = &[
    "ARCH",
    "AS",
    "CC",
    "CROSS_COMPILE",
    "GNUMAKEFLAGS",
    "KCFLAGS",
    "KCPPFLAGS",
    "KAFLAGS",
    "KERNELRELEASE",
    "LD",
    "LLVM",
    "M",
    "MAKEFLAGS",
    "MAKEFILES",
    "MFLAGS",
    "NM",
    "O",
    "OBJCOPY",
    "OBJDUMP",
    "OBJTREE",
    "SHELL",
    "SRCARCH",
    "STRIP",
    "SUBDIRS",
    "VPATH",
];

/// Values of the headers' folder.
const HEADERS: &[&str] = &[
    "$kernel_source_dir",
    "/lib/modules/$kernelver/build",
    "/lib/modules/$kernelver/source",
    "/usr/src/linux-headers-$kernelver",
];

/// Values of the folder in which DKMS builds.
const BUILD: &[&str] = &[
    "$dkms_tree/$module/$module_version/build",
    "$dkms_tree/$PACKAGE_NAME/$PACKAGE_VERSION/build",
    "/var/lib/dkms/$module/$module_version/build",
    "/var/lib/dkms/$PACKAGE_NAME/$PACKAGE_VERSION/build",
    "$PWD",
    "$(pwd)",
    "`pwd`",
];

/// How make is called for the modules of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// As kbuild takes it, with these variables: `NAME=VALUE`.
    Kbuild(Vec<String>),
    /// By the Makefile of the folder.
    Own(OwnCall),
}

/// What the folder's own Makefile is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OwnCall {
    /// `NAME=VALUE`.
    pub variables: Vec<String>,
    /// What is to be made.
    pub goals: Vec<String>,
}

impl Call {
    /// What kbuild is given. `copy` is one of the folder.
    ///
    /// # Errors
    /// LP6217.
    pub(super) fn variables(
        self,
        source: &Path,
        copy: &Path,
        headers: &Path,
        release: &str,
        log: &Log,
    ) -> Result<Vec<String>> {
        match self {
            Self::Kbuild(variables) => Ok(variables),
            Self::Own(own) => own_make::variables(&own, copy, headers, release, log)
                .map_err(|what| Error::new(codes::LP6217, Place::object(file(source).display().to_string()), what)),
        }
    }
}

/// What `dkms.conf` says of a folder; without one it is kbuild alone.
///
/// # Errors
/// LP6217; LP1001 for a file that cannot be read.
pub(super) fn call(source: &Path, headers: &Path, release: &str) -> Result<Call> {
    let above = source.parent().map(|p| p.join(CONF)).filter(|p| p.is_file());
    let (path, below) = match (source.join(CONF), above) {
        (own, _) if is_in(source) => (own, None),
        (_, Some(above)) => (above, source.file_name().and_then(|n| n.to_str())),
        _ => return Ok(Call::Kbuild(Vec::new())),
    };
    let text = bounded::read(&path, bounded::TEXT)?;
    of(&path, &String::from_utf8_lossy(&text), below, headers, release)
}

fn of(path: &Path, text: &str, below: Option<&str>, headers: &Path, release: &str) -> Result<Call> {
    let said = assignments(text);
    let odd = |what: String| Problem::new(codes::LP6217, Place::object(path.display().to_string()), what);
    let mut problems = Vec::new();
    for (name, value) in &said {
        let kind = name.split('[').next().unwrap_or(name);
        if kind != "MAKE" && !value.is_empty() {
            problems.push(odd(format!("{name}={value} changes the sources before make runs")));
        }
    }
    let script =
        text.lines().map(str::trim_start).find(|l| ["source ", ". ", "eval "].iter().any(|c| l.starts_with(c)));
    problems.extend(script.map(|line| odd(format!("what {line:?} leads to is not known"))));
    let mut lines = Vec::new();
    for (name, line) in said.iter().filter(|(n, _)| n.split('[').next() == Some("MAKE")) {
        match call_of(line, below, headers, release) {
            Ok(found) => lines.push((name, found)),
            Err(what) => problems.push(odd(format!("{name}={line}: {what}"))),
        }
    }
    // A file that names no line builds the folder it is in.
    if let Some(name) = below.filter(|_| said.iter().all(|(n, _)| !n.starts_with("MAKE"))) {
        problems.push(odd(format!("it builds the folder it is in, of which {name} is a part: name that")));
    }
    if let [(first, one), .., (last, other)] = &lines[..]
        && lines.iter().any(|(_, l)| l != one)
    {
        problems.push(odd(format!("{first} ({one:?}) and {last} ({other:?}) are not the same")));
    }
    refuse(problems)?;
    Ok(lines.into_iter().next().map_or_else(|| Call::Kbuild(Vec::new()), |(_, found)| found))
}

/// Every assignment of `MAKE`, `PRE_BUILD` and `PATCH`, in order: the name with its index, the value without quotes.
fn assignments(text: &str) -> Vec<(String, String)> {
    let text: String = text.lines().filter(|l| !l.trim_start().starts_with('#')).flat_map(|l| [l, "\n"]).collect();
    let mut found = Vec::new();
    for name in ["MAKE", "PRE_BUILD", "PATCH"] {
        for (at, _) in text.match_indices(name) {
            let before = text.get(..at).and_then(|t| t.chars().next_back());
            let mut rest = text.get(at.saturating_add(name.len())..).unwrap_or_default();
            let mut index = "";
            if let Some((inside, behind)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
                (index, rest) = (inside, behind);
            }
            let value = rest.strip_prefix("+=").or_else(|| rest.strip_prefix('='));
            // `REMAKE_INITRD`, `MAKE_MATCH`, and what the value of another one has for make, are others.
            let apart = before.is_none_or(|c| c.is_whitespace() || ";&|({".contains(c));
            if let Some(value) = value.filter(|_| apart) {
                let name = if index.is_empty() { name.to_owned() } else { format!("{name}[{index}]") };
                found.push((name, word(value)));
            }
        }
    }
    found
}

/// The first word of a text, as the shell takes its quotes away; nothing is expanded.
fn word(text: &str) -> String {
    let (mut out, mut quote, mut chars) = (String::new(), None, text.chars());
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', Some('"') | None) => match chars.next() {
                Some('\n') | None => {}
                Some(next) => out.push(next),
            },
            (c, Some(q)) if c == q => quote = None,
            (c, Some(_)) => out.push(c),
            ('"' | '\'', None) => quote = Some(c),
            (c, None) if c.is_whitespace() || c == ';' => break,
            (c, None) => out.push(c),
        }
    }
    out.trim().to_owned()
}

/// `make -C HEADERS M=BUILD [modules] [NAME=VALUE..]`, or `make [GOAL..] [NAME=VALUE..]`. An empty line is DKMS's own, which is the first.
fn call_of(line: &str, below: Option<&str>, headers_dir: &Path, release: &str) -> std::result::Result<Call, String> {
    // DKMS gives the release to a make that is not in quotes (`make_command` of dkms).
    let mut with_release = line.starts_with("make");
    let line = line.replace(['\'', '"'], "").replace("$(PWD)", "$PWD").replace("${", "\u{1}");
    let mut plain = String::new();
    // `${NAME}` is `$NAME`.
    for (i, part) in line.split('\u{1}').enumerate() {
        match part.split_once('}') {
            Some((name, rest)) if i > 0 => plain.extend(["$", name, rest]),
            _ => plain.push_str(part),
        }
    }
    let mut words = plain.split_whitespace();
    let (mut headers, mut folder, mut found, mut goals) = (false, false, Vec::new(), Vec::new());
    match words.next() {
        None if below.is_none() => return Ok(Call::Kbuild(found)),
        Some("make") => {}
        _ => return Err("it is no call of make alone".into()),
    }
    while let Some(word) = words.next() {
        if let Some(dir) = word.strip_prefix("-C") {
            let dir = if dir.is_empty() { words.next().unwrap_or_default() } else { dir };
            if !HEADERS.contains(&dir.trim_end_matches('/')) {
                return Err(format!("make is run in {dir}, which is not said to be the headers of the kernel"));
            }
            headers = true;
        } else if let Some(dir) = word.strip_prefix("M=").or_else(|| word.strip_prefix("SUBDIRS=")) {
            let dir = dir.trim_end_matches('/');
            let wanted = |b: &str| below.map_or(dir == b, |name| dir == format!("{b}/{name}"));
            if !BUILD.iter().any(|b| wanted(b)) {
                return Err(format!("it builds in {dir}, which is not the folder that was named"));
            }
            folder = true;
        } else if word.contains('=') {
            let dir = headers_dir.display().to_string();
            let word = word.replace("$kernelver", release).replace("$kernel_source_dir", &dir);
            with_release |= word.starts_with("KERNELRELEASE=");
            found.extend(handed_on(&word, release)?);
        } else if word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) && !word.starts_with('-') {
            goals.push(word.to_owned());
        } else if !is_manner(word) {
            return Err(format!("{word} is nothing that kbuild is asked for a module"));
        }
    }
    match (headers, folder) {
        (true, true) => match goals.iter().find(|g| *g != "modules" && *g != "all") {
            Some(goal) => Err(format!("{goal} is nothing that kbuild is asked for a module")),
            None => Ok(Call::Kbuild(found)),
        },
        (false, false) if below.is_none() => {
            found.extend(with_release.then(|| format!("KERNELRELEASE={release}")));
            Ok(Call::Own(OwnCall { variables: found, goals }))
        }
        _ => Err("it calls make otherwise than with -C HEADERS M=FOLDER, or in the folder itself".into()),
    }
}

/// A variable that kbuild may be given; nothing for the release, of which the headers tell it.
pub(super) fn handed_on(word: &str, release: &str) -> std::result::Result<Option<String>, String> {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let is_plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.,:/+".contains(&b));
    if name == "KERNELRELEASE" && value == release {
        return Ok(None);
    }
    let ours = OURS.contains(&name) || name.starts_with("KBUILD_") || name.starts_with("lpbuild");
    if !is_name || !is_plain || ours {
        return Err(format!("{word} is no variable that can be handed on to kbuild"));
    }
    Ok(Some(word.to_owned()))
}

/// Options of make that change nothing of what it makes.
fn is_manner(word: &str) -> bool {
    let jobs = word.strip_prefix("-j").or_else(|| word.strip_prefix("--jobs="));
    jobs.is_some_and(|n| {
        n.is_empty() || n.bytes().all(|b| b.is_ascii_digit()) || n == "$parallel_jobs" || n == "$(nproc)"
    }) || ["-s", "-k", "--silent", "--no-print-directory"].contains(&word)
}

/// Whether a folder has the file itself.
pub(super) fn is_in(source: &Path) -> bool {
    source.join(CONF).is_file()
}

/// Where the file is, for those who say what was taken from it.
pub(super) fn file(source: &Path) -> PathBuf {
    let own = source.join(CONF);
    if is_in(source) { own } else { source.parent().map_or(own, |p| p.join(CONF)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "make -C ${kernel_source_dir} M=${dkms_tree}/${PACKAGE_NAME}/${PACKAGE_VERSION}/build";

    fn read(text: &str, below: Option<&str>) -> std::result::Result<String, String> {
        let said = of(Path::new("dkms.conf"), text, below, Path::new("/h"), "6.1.0-1");
        let own = |o: OwnCall| format!("own {} {}", o.variables.join(" "), o.goals.join(" "));
        let said = said.map(|c| match c {
            Call::Kbuild(variables) => variables.join(" "),
            Call::Own(call) => own(call),
        });
        said.map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_kbuild_alone_is_followed() {
        for (text, want) in [
            (String::new(), ""),
            ("PACKAGE_NAME=x\nCLEAN=\"make clean\"\nREMAKE_INITRD=yes\nPOST_BUILD=sign.sh\n".to_owned(), ""),
            ("MAKE[0]=\"\"\nPRE_BUILD=\n".to_owned(), ""),
            (format!("MAKE[0]=\"{PLAIN}\"\n"), ""),
            (format!("MAKE='{PLAIN} modules -j8'\n"), ""),
            ("MAKE[0]=make\n".to_owned(), "own KERNELRELEASE=6.1.0-1 "),
            ("MAKE[0]=\"'make' KVER=$kernelver K=${kernel_source_dir} it\"\n".to_owned(), "own KVER=6.1.0-1 K=/h it"),
            ("MAKE[0]=\"'make' -j$(nproc) -C /lib/modules/$kernelver/build M=$(pwd)\"\n".to_owned(), ""),
            (
                format!("MAKE[0]=\"{PLAIN} \\\n  CONFIG_A=m KVER=$kernelver KERNELRELEASE=$kernelver\"\n"),
                "CONFIG_A=m KVER=6.1.0-1",
            ),
            (
                format!(
                    "if [ x ]; then\n\tMAKE[0]=\"{PLAIN} A=1\"\nelse\n\tMAKE[0]=\"{PLAIN} A=1\"\nfi\n# PRE_BUILD=x\n"
                ),
                "A=1",
            ),
        ] {
            assert_eq!(read(&text, None).as_deref(), Ok(want), "{text}");
        }
        let below = format!("MAKE[0]=\"{PLAIN}/src A=b\"\n");
        assert_eq!(read(&below, Some("src")).as_deref(), Ok("A=b"));
    }

    #[test]
    fn what_would_make_other_objects_is_refused() {
        for (text, word) in [
            ("PRE_BUILD=\"./configure\"\n".to_owned(), "PRE_BUILD=./configure changes"),
            ("PRE_BUILD+=x\n".to_owned(), "PRE_BUILD=x"),
            ("[ -e x ] && PRE_BUILD=x\n".to_owned(), "PRE_BUILD=x"),
            ("PATCH[0]=\"old.patch\"\n".to_owned(), "PATCH[0]=old.patch changes"),
            ("MAKE[0]=\"make M=$PWD\"\n".to_owned(), "otherwise than"),
            (format!("MAKE[0]=\"{PLAIN} clean\"\n"), "clean is nothing"),
            ("MAKE[0]=\"./build.sh\"\n".to_owned(), "no call of make alone"),
            (format!("MAKE[0]=\"{PLAIN}; ./more\"\n"), "not the folder"),
            (format!("MAKE[0]=\"{PLAIN} ; ./more\"\n"), "; is nothing"),
            (format!("MAKE[0]=\"{PLAIN} && ./more\"\n"), "&& is nothing"),
            (format!("MAKE[0]=\"{PLAIN} A=`x`\"\n"), "A=`x`"),
            (format!("MAKE[0]=\"{PLAIN} A=$B\"\n"), "A=$B"),
            (format!("MAKE[0]=\"{PLAIN} CC=clang\"\n"), "CC=clang"),
            (format!("MAKE[0]=\"{PLAIN} KBUILD_EXTRA_SYMBOLS=/x\"\n"), "KBUILD_EXTRA_SYMBOLS"),
            (format!("MAKE[0]=\"{PLAIN}/src\"\n"), "not the folder that was named"),
            (format!("MAKE[0]=\"{PLAIN} A=1\"\nMAKE[1]=\"{PLAIN} A=2\"\n"), "are not the same"),
            (format!("MAKE[0]=\"{PLAIN} -f other.mk\"\n"), "-f is nothing"),
            ("MAKE[0]=\"make -C src\"\n".to_owned(), "make is run in src"),
            ("MAKE=( \"make\" )\n".to_owned(), "no call of make alone"),
            (". ./more\n".to_owned(), "is not known"),
            ("eval x\n".to_owned(), "is not known"),
        ] {
            let e = read(&text, None).unwrap_err();
            assert!(e.contains("LP6217") && e.contains(word), "{text}: {e}");
        }
        for text in ["", "MAKE[0]=\"\"\n", &format!("MAKE[0]=\"{PLAIN}\"\n"), &format!("MAKE[0]=\"{PLAIN}/other\"\n")] {
            let e = read(text, Some("src")).unwrap_err();
            assert!(e.contains("LP6217"), "{text}: {e}");
        }
    }
}
