//! The configuration of an own kernel: everything off, then what the fragments in `tests/own` say.
//!
//! Input: names of fragments, the later ones overriding the earlier. Output: a configured `O=` folder. An option that
//! Kconfig did not take as it was asked for is an error: a kernel that silently lacks what its name says proves nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::workspace_root;

/// The fragments, as one text with every option once.
pub(super) fn merged(fragments: &[&str]) -> Result<String> {
    let mut options: BTreeMap<String, String> = BTreeMap::new();
    for name in fragments {
        let path = workspace_root().join("tests/own").join(format!("{name}.config"));
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        for line in text.lines() {
            if let Some(option) = option_of(line) {
                options.insert(option.to_string(), line.to_string());
            }
        }
    }
    Ok(options.into_values().map(|line| line + "\n").collect())
}

/// `CONFIG_X=..` and `# CONFIG_X is not set`; other lines are remarks.
fn option_of(line: &str) -> Option<&str> {
    let set = line.split_once('=').map(|(name, _)| name);
    let unset = line.strip_prefix("# ").and_then(|l| l.strip_suffix(" is not set"));
    set.or(unset).filter(|name| name.starts_with("CONFIG_") && !name.contains(' '))
}

/// Compares what was wanted with what Kconfig made of it.
pub(super) fn check(wanted: &str, config: &Path) -> Result<()> {
    let text = fs::read_to_string(config).with_context(|| format!("read {}", config.display()))?;
    let have: BTreeMap<&str, &str> = text.lines().filter_map(|l| Some((option_of(l)?, l))).collect();
    let lost: Vec<&str> = wanted
        .lines()
        .filter(|line| match option_of(line).and_then(|name| have.get(name)) {
            Some(line_there) => line_there != line,
            // An option that cannot be seen is off.
            None => !line.starts_with('#'),
        })
        .collect();
    if !lost.is_empty() {
        bail!("{}: Kconfig did not take\n{}", config.display(), lost.join("\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_fragments_override_and_losses_are_named() {
        let merged = merged(&["common", "bare", "size"]).unwrap();
        assert!(merged.contains("CONFIG_LOCALVERSION=\"-bare-size\"\n") && !merged.contains("\"-bare\""), "{merged}");
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join(".config");
        fs::write(&config, "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_AB=m\n").unwrap();
        check("CONFIG_A=y\n# CONFIG_B is not set\n# CONFIG_UNKNOWN is not set\n", &config).unwrap();
        for lost in ["CONFIG_A=m\n", "CONFIG_B=y\n", "# CONFIG_AB is not set\n", "CONFIG_C=y\n"] {
            let e = check(lost, &config).unwrap_err();
            assert!(e.to_string().contains(lost.trim_end()), "{e}");
        }
    }
}
