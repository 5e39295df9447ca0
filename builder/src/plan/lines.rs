//! Source lines of the instructions of a carried function.

/// From which source lines the code of a function comes, in both builds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeLines {
    /// Index of the item in the patch set.
    pub item: usize,
    /// Files the lines are in.
    pub files: Vec<String>,
    /// Of the old build: from this offset on, this line of this file.
    pub old: Vec<(u64, u32, u64)>,
    /// The same of the new build.
    pub new: Vec<(u64, u32, u64)>,
}

impl CodeLines {
    /// `file:line` of the instruction at an offset.
    pub fn line(&self, is_old: bool, at: u64) -> Option<String> {
        let rows = if is_old { &self.old } else { &self.new };
        let (_, file, line) = rows[..rows.partition_point(|r| r.0 <= at)].last()?;
        if *line == 0 {
            return None;
        }
        Some(format!("{}:{line}", self.files.get(*file as usize)?))
    }

    /// Gives lines of the new build other numbers: `number` of a file and a line.
    pub fn renumber(&mut self, number: impl Fn(&str, u64) -> u64) {
        for (_, file, line) in &mut self.new {
            if let Some(name) = self.files.get(*file as usize).filter(|_| *line != 0) {
                *line = number(name, *line);
            }
        }
    }

    /// Adds where an instruction comes from.
    pub fn add(&mut self, is_old: bool, at: u64, file: &str, line: u64) {
        let index = match self.files.iter().position(|f| f == file) {
            Some(index) => index,
            None => {
                self.files.push(file.to_owned());
                self.files.len() - 1
            }
        };
        let rows = if is_old { &mut self.old } else { &mut self.new };
        if rows.last().is_none_or(|(_, f, l)| (*f, *l) != (index as u32, line)) {
            rows.push((at, index as u32, line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_has_the_line_of_the_last_row_before_it() {
        let mut lines = CodeLines::default();
        for (at, file, line) in [(0, "a.c", 3), (4, "a.c", 3), (9, "b.h", 7), (12, "a.c", 0)] {
            lines.add(false, at, file, line);
        }
        assert_eq!(lines.new.len(), 3);
        let line = |at| lines.line(false, at);
        assert_eq!((line(0), line(8), line(11)), (Some("a.c:3".into()), Some("a.c:3".into()), Some("b.h:7".into())));
        assert_eq!((line(12), lines.line(true, 0)), (None, None));
    }
}
