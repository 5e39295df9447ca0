//! What the author has left out of the source patches, by name.

/// `FILE`, `FILE:HUNK` or `FOLDER/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leave {
    /// Relative to the source; a folder ends with `/`.
    pub path: String,
    /// The hunk, from 1.
    pub hunk: Option<usize>,
}

impl Leave {
    /// Reads a name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (path, hunk) = match text.rsplit_once(':') {
            Some((path, n)) if !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => (path, Some(n)),
            _ => (text, None),
        };
        let hunk = match hunk.map(str::parse::<usize>) {
            None => None,
            Some(Ok(n)) if n > 0 => Some(n),
            Some(_) => return Err(format!("{text:?}: hunks are counted from 1")),
        };
        let plain = !path.is_empty() && !path.starts_with('/') && !path.chars().any(char::is_control);
        if !plain || path.split('/').any(|part| part == "..") || hunk.is_some() && path.ends_with('/') {
            return Err(format!("{text:?} is not a file of the source, FILE:HUNK, or FOLDER/"));
        }
        Ok(Self { path: path.to_owned(), hunk })
    }

    /// Does it mean a file?
    pub fn has(&self, path: &str) -> bool {
        path == self.path || self.path.ends_with('/') && path.starts_with(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_files_hunks_and_folders() {
        for (text, path, hunk) in [("a/b.c", "a/b.c", None), ("a/b.c:3", "a/b.c", Some(3)), ("a/", "a/", None)] {
            assert_eq!(Leave::parse(text), Ok(Leave { path: path.into(), hunk }), "{text}");
        }
        for bad in ["", ":1", "a:0", "/a", "../a", "a/../b", "a/:1", "a\n", "a:99999999999999999999999"] {
            assert!(Leave::parse(bad).is_err(), "{bad:?}");
        }
        let folder = Leave::parse("a/").unwrap();
        assert!(folder.has("a/b/c") && !folder.has("ab") && !folder.has("b/a/c"));
    }
}
