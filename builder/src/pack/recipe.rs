//! What kbuild does for a module, kept: the objects that are the same for every patch, and the commands for the rest.
//!
//! Input: parts and headers. Output: the module as kbuild makes it, or that it has to be asked. Nothing is refused here:
//! whatever is not understood is left to kbuild.
//!
//! ```text
//! key      what the recipe is for        lpbuild, its parts, the headers' paths, the compiler
//! taken    kbuild makes a probe          the same parts under a name that no patch can have; its command files are read
//! proof    the recipe makes the probe    byte by byte what kbuild made of it, or the recipe only says why not
//! kept     objects, texts, commands      each with its digest, and what of the headers was read ([`super::stamps`])
//! follow   parts -> module               the few commands that depend on the patch, in another folder, with its name
//! ```
//!
//! kbuild notes every command in a file beside what it made (`if_changed`, scripts/Kbuild.include).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::kbuild::{Parts, Room, is_interrupted};
use super::stamps::Stamps;
use super::{KernelSide, headers::Headers, input::PatchFolder};
use crate::error::{Error, Place, Result};
use crate::hash::digest;
use crate::tool::{self, Log};
use crate::{cache, codes};

/// Name of the module that kbuild is watched with. No patch can be called so: capital letters are not allowed.
const PROBE: &str = "Lpbuild_Probe";
/// Stand for the name and the folder in what is kept.
const NAME: &str = "@NAME@";
const ROOT: &str = "@ROOT@";
/// The file of an entry that names all others.
const INDEX: &str = "recipe.json";
/// Another number when what is kept changes its meaning.
const FORMAT: u32 = 1;

/// How modules for some headers are made.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Recipe {
    /// Why kbuild has to be asked every time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unknown: Option<String>,
    /// Parts that are the same for every patch, with their digests.
    parts: BTreeMap<String, String>,
    /// Objects made of them, with their digests.
    objects: BTreeMap<String, String>,
    /// Other files that the commands read.
    texts: BTreeMap<String, String>,
    /// The commands, in order.
    commands: Vec<String>,
    /// What was read for all this outside of the parts.
    read: Stamps,
    /// The objects' contents.
    #[serde(skip)]
    contents: BTreeMap<String, Vec<u8>>,
}

/// The recipe for these headers, from the cache or taken now. None when kbuild has to be asked, the cache cannot be used
/// among other reasons.
///
/// # Errors
/// LP6215.
pub(super) fn find(
    input: &PatchFolder,
    parts: &Parts,
    headers: &Headers,
    side: &dyn KernelSide,
    log: &Log,
) -> Result<Option<Recipe>> {
    let found = probe(input, side).and_then(|(probe, fixed)| {
        let entry =
            cache::root()?.join("recipes").join(format!("{}-{}", input.kernel.release, key(&fixed, headers, log)?));
        let take = |dir: &Path| {
            log.note("# how kbuild makes a module for these headers is noted");
            take(&probe, &fixed, parts, headers, log)?.write(dir)
        };
        cache::renew(&entry, Recipe::load, take)
    });
    match found {
        Ok(recipe) => Ok(recipe.filter(|r| r.unknown.is_none())),
        Err(e) if is_interrupted(&e) => Err(e),
        Err(_) => Ok(None),
    }
}

/// The parts of the probe: those of this patch under the other name; and those of them that no patch has a say in.
fn probe(input: &PatchFolder, side: &dyn KernelSide) -> Result<(Parts, Parts)> {
    let mut of_probe = input.clone();
    of_probe.manifest.patch.name = PROBE.to_owned();
    of_probe.manifest.patch.version = "0".to_owned();
    of_probe.manifest.patch.description = String::new();
    of_probe.kernel.build_id = "00".to_owned();
    let parts = side.parts(&of_probe)?;
    let of_patch = |c: &[u8]| !c.is_empty() && (c == input.object || c == input.manifest_text.as_bytes());
    let fixed = parts.iter().filter(|(_, content)| !of_patch(content)).cloned().collect();
    Ok((parts, fixed))
}

/// Stands for everything a recipe depends on that can be told without one.
fn key(fixed: &Parts, headers: &Headers, log: &Log) -> Result<String> {
    let toolchain = crate::toolchain::Toolchain::of(&headers.compiler.display().to_string(), log)?;
    let mut text = format!("{FORMAT}\0{}\0{}\0{}\0", env!("CARGO_PKG_VERSION"), toolchain.command_key, headers.key());
    for (name, content) in fixed {
        text.push_str(&format!("{name}\0{}\0", digest(content)));
    }
    Ok(digest(text.as_bytes()).chars().take(16).collect())
}

/// Has kbuild make the probe and notes how; then makes it by what was noted.
fn take(probe: &Parts, fixed: &Parts, parts: &Parts, headers: &Headers, log: &Log) -> Result<Recipe> {
    let started = SystemTime::now();
    let room = Room::new(headers, probe)?;
    room.make(headers, log)?;
    let made = room.module.join(format!("{PROBE}.ko"));
    let module = fs::read(&made).map_err(|e| Error::io(&made, &e))?;
    // The same for this patch as for the probe, so the same for every one.
    let same: Parts = fixed.iter().filter(|p| parts.contains(p)).cloned().collect();
    let recipe = match Recipe::of(&room, probe, &same, headers) {
        Ok(recipe) => recipe,
        Err(why) => {
            return Ok(Recipe { unknown: Some(why), read: stamps(&room, headers, &[], &[]), ..Recipe::default() });
        }
    };
    // What changes while it is read may have been read before or after.
    if !recipe.read.are_older_than(started) {
        return Err(Error::new(codes::LP4003, Place::default(), "the headers are being changed"));
    }
    let again = Room::new(headers, probe)?;
    let same =
        recipe.follow(&again, PROBE, probe, log).and_then(|made| fs::read(&made).map_err(|e| Error::io(&made, &e)));
    match same {
        Ok(bytes) if bytes == module => Ok(recipe),
        Err(e) if is_interrupted(&e) => Err(e),
        _ => {
            let why = "the commands that kbuild noted make another module".to_owned();
            Ok(Recipe { unknown: Some(why), read: recipe.read, ..Recipe::default() })
        }
    }
}

/// What the commands and everything kbuild asks before them read.
fn stamps(room: &Room, headers: &Headers, depends: &[PathBuf], commands: &[String]) -> Stamps {
    let mut stamps = Stamps::default();
    stamps.add_files(depends.iter().filter(|p| !p.starts_with(&room.module)));
    stamps.add_files(headers.read_by_kbuild().iter());
    for command in commands {
        let program = command.split_whitespace().next().unwrap_or_default();
        stamps.add_program(program);
    }
    stamps
}

impl Recipe {
    /// Reads what kbuild left in the folder of the probe. Err says what is not as expected.
    fn of(room: &Room, probe: &Parts, same: &Parts, headers: &Headers) -> std::result::Result<Self, String> {
        let root = room.root().display().to_string();
        let keep = |text: &str| text.replace(&root, ROOT).replace(PROBE, NAME);
        let read = |name: &str| {
            fs::read_to_string(room.module.join(name))
                .map_err(|_| format!("kbuild left no {}", name.replace(PROBE, NAME)))
        };
        let mut recipe = Self::default();
        for (name, content) in same {
            recipe.parts.insert(name.clone(), digest(content));
        }
        let mut depends = Vec::new();
        let mut note = |made: &str, recipe: &mut Self, is_run: bool| {
            let text = read(&format!(".{made}.cmd"))?;
            let file =
                CommandFile::parse(&text).ok_or_else(|| format!("the command of {} is not understood", keep(made)))?;
            depends.extend(file.depends.iter().map(|d| room.objects.join(d)));
            if is_run {
                recipe.commands.push(keep(&file.command));
            }
            Ok::<_, String>(text)
        };
        let list = format!("{PROBE}.mod");
        let members = read(&list)?;
        let mut known = vec![format!("{PROBE}.o"), format!("{PROBE}.mod.o")];
        for member in members.lines() {
            let member = Path::new(member).file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
            known.push(member.clone());
            if probe.iter().any(|(name, _)| *name == format!("{member}_shipped")) {
                continue;
            }
            let source = format!("{}.c", member.trim_end_matches(".o"));
            let is_fixed = recipe.parts.contains_key(&source);
            let text = note(&member, &mut recipe, !is_fixed)?;
            recipe.texts.insert(format!(".{member}.cmd"), keep(&text));
            if is_fixed {
                recipe.add_object(room, &member)?;
            }
        }
        for name in [list.as_str(), "modules.order"] {
            recipe.texts.insert(keep(name), keep(&read(name)?));
        }
        // What newer kernels compile beside, scripts/module-common.c.
        let mut others: Vec<String> = fs::read_dir(&room.module)
            .map_err(|e| e.to_string())?
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .filter(|n| n.ends_with(".o") && !known.contains(n))
            .collect();
        others.sort();
        for other in others {
            note(&other, &mut recipe, false)?;
            recipe.add_object(room, &other)?;
        }
        for made in [&format!("{PROBE}.o"), "Module.symvers", &format!("{PROBE}.mod.o"), &format!("{PROBE}.ko")] {
            note(made, &mut recipe, true)?;
        }
        recipe.read = stamps(room, headers, &depends, &recipe.commands);
        Ok(recipe)
    }

    fn add_object(&mut self, room: &Room, name: &str) -> std::result::Result<(), String> {
        let content = fs::read(room.module.join(name)).map_err(|e| format!("{name}: {e}"))?;
        // What the kernel's macros put there would be wrong for every other patch.
        if content.windows(PROBE.len()).any(|w| w == PROBE.as_bytes()) {
            return Err(format!("{name} has the name of the module in it"));
        }
        self.objects.insert(name.to_owned(), digest(&content));
        self.contents.insert(name.to_owned(), content);
        Ok(())
    }

    /// Makes the module of `parts` in `room` and returns its path.
    pub(super) fn follow(&self, room: &Room, name: &str, parts: &Parts, log: &Log) -> Result<PathBuf> {
        let root = room.root().display().to_string();
        let fill = |text: &str| text.replace(NAME, name).replace(ROOT, &root);
        let have: BTreeMap<&str, &Vec<u8>> = parts.iter().map(|(n, c)| (n.as_str(), c)).collect();
        for (part, sum) in &self.parts {
            if have.get(part.as_str()).is_none_or(|c| digest(c) != *sum) {
                return Err(Error::new(codes::LP4006, Place::object(part), "it is not what the recipe is for"));
            }
        }
        for (part, content) in parts {
            if let Some(object) = part.strip_suffix("_shipped") {
                room.write(object, content)?;
            }
        }
        for (object, content) in &self.contents {
            room.write(object, content)?;
        }
        for (file, text) in &self.texts {
            room.write(&fill(file), fill(text).as_bytes())?;
        }
        for command in &self.commands {
            let mut shell = tool::command("sh");
            // By these Debian's objtool and modpost find the program for the machine.
            shell.env("ARCH", "x86").env("SRCARCH", "x86");
            shell.current_dir(&room.objects).arg("-ec").arg(fill(command));
            log.run(&mut shell, codes::LP4006)?;
        }
        Ok(room.module.join(format!("{name}.ko")))
    }

    /// Fills the empty folder of an entry.
    fn write(&self, dir: &Path) -> Result<()> {
        let put = |name: &str, content: &[u8]| {
            let path = dir.join(name);
            fs::write(&path, content).map_err(|e| Error::io(&path, &e))
        };
        let index = serde_json::to_string_pretty(self)
            .map_err(|e| Error::new(codes::LP1000, Place::object(INDEX), e.to_string()))?;
        for (name, content) in &self.contents {
            put(name, content)?;
        }
        put(INDEX, format!("{}\n{index}", digest(index.as_bytes())).as_bytes())
    }

    /// Reads an entry. None when it is not there, damaged, or of headers that have changed.
    fn load(dir: &Path) -> Option<Self> {
        let text = fs::read_to_string(dir.join(INDEX)).ok()?;
        let (sum, index) = text.split_once('\n')?;
        if digest(index.as_bytes()) != sum {
            return None;
        }
        let mut recipe: Self = serde_json::from_str(index).ok()?;
        if !recipe.read.hold() {
            return None;
        }
        for (name, sum) in &recipe.objects {
            let content = fs::read(dir.join(name)).ok()?;
            if digest(&content) != *sum {
                return None;
            }
            recipe.contents.insert(name.clone(), content);
        }
        Some(recipe)
    }
}

/// A command file of kbuild: `cmd_TARGET := COMMAND` (`savedcmd_` since 6.3), and below what fixdep makes of the compiler's
/// list of files.
struct CommandFile {
    command: String,
    /// Relative to the folder of the objects, or absolute.
    depends: Vec<PathBuf>,
}

impl CommandFile {
    /// None for one that is not of this form.
    fn parse(text: &str) -> Option<Self> {
        let first = text.lines().next()?;
        let first = first.strip_prefix("saved").unwrap_or(first).strip_prefix("cmd_")?;
        let command = first.split_once(" := ")?.1.trim();
        // As make reads it back (`make-cmd`): `$` is doubled, `#` a variable; nothing else is left to be expanded.
        let command = command.replace("$(pound)", "#");
        if command.replace("$$", "").contains('$') || command.is_empty() || command.ends_with('\\') {
            return None;
        }
        let command = command.replace("$$", "$");
        let mut depends = Vec::new();
        let mut is_list = false;
        for line in text.lines() {
            if let Some((start, rest)) = line.split_once(" := ") {
                is_list = start.starts_with("deps_");
                if start.starts_with("source_") {
                    depends.push(PathBuf::from(rest.trim()));
                }
            } else if is_list {
                let word = line.trim().trim_end_matches('\\').trim();
                match word.split_whitespace().next() {
                    // Options of the configuration, all of which are in files that are looked at anyway.
                    Some(w) if w.starts_with("$(") => {}
                    Some(w) => depends.push(PathBuf::from(w)),
                    None => is_list = false,
                }
            }
        }
        Some(Self { command, depends })
    }
}
