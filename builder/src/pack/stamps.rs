//! Whether files are as they were: what a kept recipe was made of, told without reading it again.
//!
//! A file is taken for the same while its number, size and both times are. The time of the last change of the inode cannot be
//! set back, so writing the same number of bytes and giving the file its old date does not go unnoticed. Folders tell by
//! their time when a file is added that the compiler would find first.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::tool;

/// The kernel's clock for files lags behind by up to a tick.
const TICK: Duration = Duration::from_millis(20);

/// Files, folders and programs, and how they looked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamps {
    files: BTreeMap<PathBuf, Stamp>,
    /// Where programs are found that are called by name.
    programs: BTreeMap<String, PathBuf>,
}

/// How a file looked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds of the last change of the content and of the inode.
    times: [i64; 4],
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let m = fs::metadata(path).ok()?;
        if m.is_dir() {
            return Some(Self { inode: m.ino(), size: 0, times: [m.mtime(), m.mtime_nsec(), 0, 0] });
        }
        Some(Self { inode: m.ino(), size: m.len(), times: [m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()] })
    }
}

impl Stamps {
    /// Notes files where they really are, and their folders. What is not there is not noted.
    pub(super) fn add_files<'p>(&mut self, paths: impl Iterator<Item = &'p PathBuf>) {
        for path in paths {
            let Ok(path) = path.canonicalize() else { continue };
            for path in [Some(path.as_path()), path.parent()].into_iter().flatten() {
                if !self.files.contains_key(path)
                    && let Some(stamp) = Stamp::of(path)
                {
                    self.files.insert(path.to_path_buf(), stamp);
                }
            }
        }
    }

    /// Notes what a name means now. A name with a folder in it is one of the headers' own programs.
    pub(super) fn add_program(&mut self, name: &str) {
        if !name.contains('/')
            && let Ok(path) = tool::find(name)
            && let Ok(real) = path.canonicalize()
        {
            if let Some(stamp) = Stamp::of(&real) {
                self.files.insert(real.clone(), stamp);
            }
            self.programs.insert(name.to_owned(), real);
        }
    }

    /// Is everything as it was?
    pub(super) fn hold(&self) -> bool {
        self.files.iter().all(|(path, stamp)| Stamp::of(path).as_ref() == Some(stamp))
            && self
                .programs
                .iter()
                .all(|(name, path)| tool::find(name).ok().and_then(|p| p.canonicalize().ok()).as_ref() == Some(path))
    }

    /// Was nothing changed at `time` or later?
    pub(super) fn are_older_than(&self, time: SystemTime) -> bool {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(TICK);
        let before = |secs: i64, nanos: i64| {
            Duration::new(u64::try_from(secs).unwrap_or(0), u32::try_from(nanos).unwrap_or(0)) < since
        };
        self.files.values().all(|s| before(s.times[0], s.times[1]) && before(s.times[2], s.times[3]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_keeps_size_and_date_is_noticed_and_so_is_a_new_file_beside() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.h");
        fs::write(&file, "one").unwrap();
        let date = fs::metadata(&file).unwrap().modified().unwrap();
        let noted = |file: &PathBuf| {
            let mut stamps = Stamps::default();
            stamps.add_files([file].into_iter());
            stamps
        };
        let stamps = noted(&file);
        assert!(stamps.hold());
        assert!(!stamps.are_older_than(SystemTime::now()) || stamps.files.is_empty());
        assert!(stamps.are_older_than(SystemTime::now() + Duration::from_secs(1)));
        std::thread::sleep(TICK);
        fs::write(&file, "two").unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(date).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), date);
        assert!(!stamps.hold());

        let stamps = noted(&file);
        std::thread::sleep(TICK);
        fs::write(dir.path().join("b.h"), "").unwrap();
        assert!(!stamps.hold());
    }
}
