//! The test programs of the workspace, and the tests in them.
//!
//! Input: what cargo says while it compiles. Output: [`Program`]s, and the names of their tests as they list them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use harness::workspace_root;

/// One test program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Program {
    /// Of a file of tests its name, else the name of the package.
    pub name: String,
    /// The executable.
    pub path: PathBuf,
    /// The folder of its package: cargo runs tests there.
    pub folder: PathBuf,
}

/// What a program says of one of its tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// As `--exact` takes it.
    pub name: String,
    /// It is not run unless asked for.
    pub ignored: bool,
}

/// Compiles all tests; cargo's own output is shown.
pub fn programs() -> Result<Vec<Program>> {
    let mut c = cargo();
    c.args(["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]);
    let out = c.stderr(Stdio::inherit()).output().context("start cargo test")?;
    if !out.status.success() {
        bail!("the tests do not compile");
    }
    let mut found: Vec<Program> = String::from_utf8_lossy(&out.stdout).lines().filter_map(program).collect();
    found.sort();
    Ok(found)
}

/// One line of `--message-format=json`, when it is about a test program.
fn program(line: &str) -> Option<Program> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    if message["profile"]["test"] != true {
        return None;
    }
    let path = PathBuf::from(message["executable"].as_str()?);
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    let target = &message["target"];
    let is_library = target["kind"].as_array()?.iter().any(|k| k == "lib");
    let name = target["name"].as_str()?;
    // The library and the program of a package can have one name.
    let name = if is_library { format!("{name} lib") } else { name.to_owned() };
    Some(Program { name, path, folder })
}

impl Program {
    /// Its tests, by name.
    pub fn tests(&self) -> Result<Vec<Listed>> {
        let list = |more: &[&str]| -> Result<Vec<String>> {
            let mut c = Command::new(&self.path);
            c.args(["--list", "--format", "terse"]).args(more).current_dir(&self.folder);
            let text = harness::cmd::output(&mut c)?;
            Ok(text.lines().filter_map(|l| Some(l.strip_suffix(": test")?.to_owned())).collect())
        };
        let ignored = list(&["--ignored"])?;
        let all = list(&[])?.into_iter();
        Ok(all.map(|name| Listed { ignored: ignored.contains(&name), name }).collect())
    }
}

/// The cargo that runs this.
pub fn cargo() -> Command {
    let mut c = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    c.current_dir(workspace_root());
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_told_from_others() {
        let line = |kind: &str, test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/p/Cargo.toml","executable":"/w/target/x-1",
                    "target":{{"kind":["{kind}"],"name":"x"}},"profile":{{"test":{test}}}}}"#
            )
        };
        let found = program(&line("test", true)).unwrap();
        assert_eq!((found.name.as_str(), found.folder.as_path()), ("x", Path::new("/w/p")));
        assert_eq!(program(&line("lib", true)).unwrap().name, "x lib");
        assert_eq!(program(&line("bin", false)), None);
        assert_eq!(program("   Compiling x"), None);
    }
}
