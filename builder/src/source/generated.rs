//! Headers that kbuild generates from compiled C: they must come out the same with a change.
//!
//! `bounds.h`, `asm-offsets.h` and the like hold sizes and offsets that all objects are built with. Where one of their
//! sources reads a changed file, it is compiled again with the change and compared. Refused: another content (LP6305).

use std::fs;
use std::path::{Path, PathBuf};

use super::compile::Shadow;
use super::patch::SourceChange;
use super::tree::Tree;
use crate::codes;
use crate::error::{Error, Place, Result};
use crate::tool::{self, Log};

/// Assembler outputs the headers are made from (Kbuild, scripts/mod/Makefile).
const MADE: &[&str] = &["kernel/bounds.s", "arch/x86/kernel/asm-offsets.s", "scripts/mod/devicetable-offsets.s"];

/// Checks every one whose recorded inputs name a changed file.
pub fn check(tree: &Tree, change: &SourceChange, shadow: &Shadow, work: &Path, log: &Log) -> Result<()> {
    for made in MADE {
        let (folder, name) = made.rsplit_once('/').unwrap_or(("", made));
        let recorded = tree.build.join(folder).join(format!(".{name}.cmd"));
        let Ok(text) = fs::read_to_string(&recorded) else { continue };
        let source = tree.source.to_string_lossy();
        let reads = |path: &String| text.contains(&format!(" {source}/{path}"));
        let Some(changed) = change.files.keys().find(|p| reads(p)) else { continue };
        let command = text.lines().next().and_then(|l| l.split_once(" := "));
        let Some((_, command)) = command.filter(|(_, c)| c.contains(&format!(" -o {made} "))) else {
            let what = "kbuild recorded its command in an unknown form";
            return Err(Error::new(codes::LP6212, Place::object(*made), what));
        };
        let out = work.join("generated").join(name);
        let parent = out.parent().map(PathBuf::from).unwrap_or_default();
        fs::create_dir_all(&parent).map_err(|e| Error::io(&parent, &e))?;
        let command = command
            .replace(&format!(" -o {made} "), &format!(" -o {} ", out.display()))
            .replace(&format!("{folder}/.{name}.d"), &format!("{}.d", out.display()))
            .replace("$(pound)", "#")
            .replace("$$", "$")
            .replace(source.as_ref(), &shadow.source.to_string_lossy());
        log.run(tool::command("sh").args(["-c", &command]).current_dir(&tree.build), codes::LP6213)?;
        if values(&tree.build.join(made))? != values(&out)? {
            let what = format!("{changed} changes the header generated from it");
            return Err(Error::new(codes::LP6305, Place::object(*made), what));
        }
    }
    Ok(())
}

/// The lines that become definitions: `.ascii "->NAME $VALUE EXPRESSION"` (include/linux/kbuild.h).
fn values(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
    Ok(text.lines().filter(|l| l.contains("\"->")).map(|l| l.trim().to_owned()).collect())
}
