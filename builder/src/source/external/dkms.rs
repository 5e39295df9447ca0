//! `dkms.conf`: what DKMS does before and beside `make -C HEADERS M=DIR`, by which the objects that run may be others than kbuild makes of
//! the folder as it is.
//!
//! Input: the folder of the sources; its `dkms.conf`, or that of the folder above, whose `MAKE` then names the folder. Output: the
//! variables that its `MAKE` line gives to kbuild. Refused (LP6217): `PRE_BUILD` and `PATCH`, which change the sources, and a `MAKE` line that
//! is not kbuild's with variables. `POST_BUILD` and what comes behind it work on finished modules, and the file that is installed is what a
//! patch is compared with.
//!
//! The file is a script of bash that DKMS reads (dkms(8)); it is not run. Assignments are found wherever they stand, behind conditions as
//! well, and all of one name must say the same; `source` and `eval`, behind which anything can be, are refused.

use std::path::{Path, PathBuf};

use crate::bounded;
use crate::codes;
use crate::error::{Place, Problem, Result, refuse};

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

/// The variables that make is given for the modules of a folder: `NAME=VALUE`.
///
/// # Errors
/// LP6217; LP1001 for a file that cannot be read.
pub(super) fn variables(source: &Path, release: &str) -> Result<Vec<String>> {
    let above = source.parent().map(|p| p.join(CONF)).filter(|p| p.is_file());
    let (path, below) = match (source.join(CONF), above) {
        (own, _) if own.is_file() => (own, None),
        (_, Some(above)) => (above, source.file_name().and_then(|n| n.to_str())),
        _ => return Ok(Vec::new()),
    };
    let text = bounded::read(&path, bounded::TEXT)?;
    of(&path, &String::from_utf8_lossy(&text), below, release)
}

fn of(path: &Path, text: &str, below: Option<&str>, release: &str) -> Result<Vec<String>> {
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
        match variables_of(line, below, release) {
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
        problems.push(odd(format!("{first} ({}) and {last} ({}) are not the same", one.join(" "), other.join(" "))));
    }
    refuse(problems)?;
    Ok(lines.into_iter().next().map(|(_, found)| found).unwrap_or_default())
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

/// What a line gives to kbuild, if it is `make -C HEADERS M=BUILD [modules] [NAME=VALUE..]`. An empty one is DKMS's own, which is that.
fn variables_of(line: &str, below: Option<&str>, release: &str) -> std::result::Result<Vec<String>, String> {
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
    let (mut headers, mut folder, mut found) = (false, false, Vec::new());
    match words.next() {
        None if below.is_none() => return Ok(found),
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
        } else if let Some((name, value)) = word.split_once('=') {
            let value = value.replace("$kernelver", release);
            let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            let is_plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.,:/+".contains(&b));
            // Make sees the release as it is told of it by the headers.
            if name == "KERNELRELEASE" && value == release {
                continue;
            }
            if !is_name
                || !is_plain
                || OURS.contains(&name)
                || name.starts_with("KBUILD_")
                || name.starts_with("lpbuild")
            {
                return Err(format!("{word} is no variable that can be handed on to kbuild"));
            }
            found.push(format!("{name}={value}"));
        } else if word != "modules" && word != "all" && !is_manner(word) {
            return Err(format!("{word} is nothing that kbuild is asked for a module"));
        }
    }
    match (headers, folder) {
        (true, true) => Ok(found),
        _ => Err("it leaves to the folder's own Makefile how kbuild is called (-C HEADERS M=FOLDER)".into()),
    }
}

/// Options of make that change nothing of what it makes.
fn is_manner(word: &str) -> bool {
    let jobs = word.strip_prefix("-j").or_else(|| word.strip_prefix("--jobs="));
    jobs.is_some_and(|n| {
        n.is_empty() || n.bytes().all(|b| b.is_ascii_digit()) || n == "$parallel_jobs" || n == "$(nproc)"
    }) || ["-s", "-k", "--silent", "--no-print-directory"].contains(&word)
}

/// Where the file is, for those who say what was taken from it.
pub(super) fn file(source: &Path) -> PathBuf {
    let own = source.join(CONF);
    if own.is_file() { own } else { source.parent().map_or(own, |p| p.join(CONF)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "make -C ${kernel_source_dir} M=${dkms_tree}/${PACKAGE_NAME}/${PACKAGE_VERSION}/build";

    fn read(text: &str, below: Option<&str>) -> std::result::Result<String, String> {
        of(Path::new("dkms.conf"), text, below, "6.1.0-1").map(|v| v.join(" ")).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_kbuild_alone_is_followed() {
        for (text, want) in [
            (String::new(), ""),
            ("PACKAGE_NAME=x\nCLEAN=\"make clean\"\nREMAKE_INITRD=yes\nPOST_BUILD=sign.sh\n".to_owned(), ""),
            ("MAKE[0]=\"\"\nPRE_BUILD=\n".to_owned(), ""),
            (format!("MAKE[0]=\"{PLAIN}\"\n"), ""),
            (format!("MAKE='{PLAIN} modules -j8'\n"), ""),
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
            ("MAKE[0]=\"make\"\n".to_owned(), "own Makefile"),
            ("MAKE[0]=\"make KVER=$kernelver\"\n".to_owned(), "own Makefile"),
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
