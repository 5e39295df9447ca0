use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::*;

/// A source folder and a folder for patches.
struct World {
    dir: tempfile::TempDir,
    patches: usize,
}

const OLD: &str = "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\n";

impl World {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let to = dir.path().join("source").join(path);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(to, content).unwrap();
        }
        fs::create_dir_all(dir.path().join("source")).unwrap();
        Self { dir, patches: 0 }
    }
    fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }
    fn patch(&mut self, text: impl AsRef<[u8]>) -> PathBuf {
        self.patches += 1;
        let path = self.dir.path().join(format!("{}.patch", self.patches));
        fs::write(&path, text).unwrap();
        path
    }
    fn apply(&mut self, patches: &[&str]) -> Result<SourceChange> {
        self.leave(patches, &[])
    }
    fn leave(&mut self, patches: &[&str], leave: &[&str]) -> Result<SourceChange> {
        let leave: Vec<String> = leave.iter().map(|l| (*l).to_owned()).collect();
        let list: Vec<PathBuf> = patches.iter().map(|p| self.patch(p)).collect();
        apply(&self.source(), &list, &leave)
    }
    /// The codes of the error, which must be one.
    fn refused(&mut self, patch: &str) -> (String, String) {
        let e = self.apply(&[patch]).expect_err("it is refused");
        (e.problems[0].code.id.to_owned(), e.to_string())
    }
}

fn new(change: &SourceChange, path: &str) -> String {
    String::from_utf8(change.files[path].new.clone().unwrap()).unwrap()
}

const FIX: &str = "--- a/d/f.c\n+++ b/d/f.c\n@@ -2,5 +2,5 @@ head\n two\n three\n-four\n+FOUR\n five\n six\n";

#[test]
fn one_hunk_gives_contents_and_ranges_and_leaves_the_source() {
    let mut w = World::new(&[("d/f.c", OLD)]);
    let change = w.apply(&[FIX]).unwrap();
    assert_eq!(new(&change, "d/f.c"), OLD.replace("four", "FOUR"));
    assert_eq!(change.files["d/f.c"].old.as_deref(), Some(OLD.as_bytes()));
    let range = LineRange { old_start: 4, old_len: 1, new_start: 4, new_len: 1 };
    assert_eq!(change.files["d/f.c"].ranges, [range]);
    assert!(change.moved.is_empty());
    assert_eq!(fs::read_to_string(w.source().join("d/f.c")).unwrap(), OLD);
}

#[test]
fn several_patches_of_one_file_add_up_and_may_cancel() {
    let mut w = World::new(&[("d/f.c", OLD)]);
    let back = FIX.replace("-four", "-FOUR").replace("+FOUR", "+four");
    let again = "--- a/d/f.c\n+++ b/d/f.c\n@@ -3,3 +3,4 @@\n three\n FOUR\n+4b\n five\n";
    let change = w.apply(&[FIX, again]).unwrap();
    assert_eq!(new(&change, "d/f.c"), OLD.replace("four\n", "FOUR\n4b\n"));
    assert_eq!(w.apply(&[FIX, &back]).unwrap().files.len(), 0);
    let (code, _) = w.refused(again);
    assert_eq!(code, "LP6102", "only with the first patch");
}

#[test]
fn ranges_are_minimal_whatever_the_hunks_say() {
    let change = SourceChange::from_contents([(
        "a.c".into(),
        Some(b"a\nb\nc\nd\n".to_vec()),
        Some(b"0\na\nb\nC\nd\ne".to_vec()),
    )]);
    let r = |old_start, old_len, new_start, new_len| LineRange { old_start, old_len, new_start, new_len };
    assert_eq!(change.files["a.c"].ranges, [r(1, 0, 1, 1), r(3, 1, 4, 1), r(5, 0, 6, 1)]);
    assert_eq!(FileChange::new("n.c", None, Some(b"x\n".to_vec())).ranges, [r(1, 0, 1, 1)]);
    assert!(SourceChange::from_contents([("s.c".into(), Some(vec![1]), Some(vec![1]))]).files.is_empty());
}

#[test]
fn moved_hunks_are_found_and_noted() {
    let lines: String = (0..40).map(|i| format!("line {i}\n")).collect();
    let mut w = World::new(&[("d/f.c", &format!("{lines}{OLD}"))]);
    let change = w.apply(&[FIX]).unwrap();
    assert_eq!(new(&change, "d/f.c"), format!("{lines}{}", OLD.replace("four", "FOUR")));
    assert_eq!((change.moved.len(), change.moved[0].offset, change.moved[0].places), (1, 40, 1));
    assert!(change.moved[0].to_string().contains("1.patch: d/f.c: @@ -2,5 +2,5 @@ head applies +40 lines away"));
    // Twice: the nearest, and it says so.
    let mut w = World::new(&[("d/f.c", &format!("{lines}{OLD}{lines}{OLD}"))]);
    let change = w.apply(&[FIX]).unwrap();
    assert_eq!(new(&change, "d/f.c"), format!("{lines}{}{lines}{OLD}", OLD.replace("four", "FOUR")));
    assert!(change.moved[0].to_string().contains("nearest of 2 places"));
}

#[test]
fn a_hunk_with_little_context_must_fit_in_one_place_only() {
    let weak = "--- a/d/f.c\n+++ b/d/f.c\n@@ -2,2 +2,3 @@\n+NEW\n x\n y\n";
    let mut w = World::new(&[("d/f.c", "a\nb\nc\nx\ny\nd\nx\ny\n")]);
    let (code, text) = w.refused(weak);
    assert_eq!(code, "LP6102");
    assert!(text.contains("several places"), "{text}");
    let mut w = World::new(&[("d/f.c", "a\nb\nc\nx\ny\nd\n")]);
    assert_eq!(new(&w.apply(&[weak]).unwrap(), "d/f.c"), "a\nb\nc\nNEW\nx\ny\nd\n");
    // Nothing at all to recognise the place by.
    let (code, text) = w.refused("--- a/d/f.c\n+++ b/d/f.c\n@@ -2,0 +3 @@\n+NEW\n");
    assert!(code == "LP6102" && text.contains("no line of context"), "{text}");
}

#[test]
fn a_hunk_that_does_not_fit_is_shown_with_what_the_source_has() {
    let mut w = World::new(&[("d/f.c", &OLD.replace("three", "drei"))]);
    let e = w.apply(&[FIX]).unwrap_err();
    assert_eq!(e.exit_code(), 4);
    let text = e.to_string();
    for part in [
        "LP6102: d/f.c: ",
        "1.patch, line 3: hunk 1 (@@ -2,5 +2,5 @@ head): ",
        "\n     two\n  >  three\n    -four\n     five\n     six\n",
        "but line 2 and following of the source are\n     two\n  >  drei\n     four\n",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    // Every hunk that fails, of every file.
    let both = format!("{FIX}{}", FIX.replace("f.c", "g.c"));
    assert_eq!(w.apply(&[&both]).unwrap_err().problems.len(), 2);
    assert!(w.refused(&FIX.replace("f.c", "g.c")).1.contains("the source does not have it"));
}

#[test]
fn a_patch_that_is_applied_already_is_recognised() {
    let mut w = World::new(&[("d/f.c", &OLD.replace("four", "FOUR"))]);
    assert_eq!(w.refused(FIX).0, "LP6103");
    // Only one of two hunks: not the whole patch.
    let two = format!("{FIX}@@ -8,3 +8,3 @@\n eight\n-nine\n+NINE\n ten\n");
    let (code, text) = w.refused(&two);
    assert!(code == "LP6102" && text.contains("hunk 1 (@@ -2,5 +2,5 @@ head) seems to be applied already"), "{text}");
    let mut w = World::new(&[("d/f.c", &OLD.replace("four", "FOUR").replace("nine", "NINE"))]);
    assert_eq!(w.refused(&two).0, "LP6103");
    let adds = "diff --git a/n.c b/n.c\nnew file mode 100644\n--- /dev/null\n+++ b/n.c\n@@ -0,0 +1,2 @@\n+a\n+b\n";
    let mut w = World::new(&[("n.c", "a\nb\n")]);
    assert_eq!(w.refused(adds).0, "LP6103");
    let mut w = World::new(&[("n.c", "a\n")]);
    assert_eq!(w.refused(adds).0, "LP6102");
}

#[test]
fn files_are_added_by_git_by_diff_and_empty() {
    let mut w = World::new(&[("d/f.c", OLD)]);
    let git = "diff --git a/n/n.c b/n/n.c\nnew file mode 100644\nindex 000..123\n--- /dev/null\n+++ b/n/n.c\n@@ -0,0 +1,2 @@\n\
               +a\n+b\n\\ No newline at end of file\ndiff --git a/n/e.h b/n/e.h\nnew file mode 100644\nindex 000..e69\n";
    let plain = "--- linux.orig/p.c\t1970-01-01 01:00:00.000000000 +0100\n+++ linux/p.c\t2024-01-01 00:00:00\n@@ -0,0 +1 @@\n+p\n";
    let change = w.apply(&[git, plain]).unwrap();
    assert_eq!(new(&change, "n/n.c"), "a\nb");
    assert_eq!(new(&change, "n/e.h"), "");
    assert_eq!(new(&change, "p.c"), "p\n");
    assert!(change.files.values().all(|f| f.old.is_none()));
    // A second patch to the added file.
    let more = "--- a/p.c\n+++ b/p.c\n@@ -1 +1,2 @@\n p\n+q\n";
    assert_eq!(new(&w.apply(&[plain, more]).unwrap(), "p.c"), "p\nq\n");
}

#[test]
fn what_cannot_be_built_is_refused_with_its_own_code() {
    let git = |lines: &str| format!("diff --git a/d/f.c b/d/f.c\n{lines}");
    let cases = [
        (git("deleted file mode 100644\nindex 1..0\n--- a/d/f.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"), "LP6104"),
        ("--- a/d/f.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n".into(), "LP6104"),
        ("--- a/d/f.c\t2024\n+++ b/d/f.c\t1970-01-01 00:00:00\n@@ -1 +0,0 @@\n-x\n".into(), "LP6104"),
        ("diff --git a/d/f.c b/d/g.c\nsimilarity index 100%\nrename from d/f.c\nrename to d/g.c\n".into(), "LP6105"),
        ("diff --git a/d/f.c b/d/g.c\nsimilarity index 90%\ncopy from d/f.c\ncopy to d/g.c\n".into(), "LP6105"),
        (FIX.replace("--- a/d/f.c", "diff --git a/d/g.c b/d/f.c\n--- a/d/g.c"), "LP6105"),
        (git("old mode 100644\nnew mode 100755\n"), "LP6106"),
        (git("new file mode 120000\n--- /dev/null\n+++ b/d/f.c\n@@ -0,0 +1 @@\n+/etc/passwd\n"), "LP6106"),
        (git("index 1..2 120000\n--- a/d/f.c\n+++ b/d/f.c\n@@ -1 +1 @@\n-x\n+y\n"), "LP6106"),
        (git("index 1..2 100644\nGIT binary patch\nliteral 1\nIcmZ\n"), "LP6107"),
        (git("index 1..2 100644\nBinary files a/d/f.c and b/d/f.c differ\n"), "LP6107"),
        ("Binary files linux.orig/d/f.c and linux/d/f.c differ\n".into(), "LP6107"),
        (FIX.replace("a/d/f.c", "a/../f.c").replace("b/d/f.c", "b/../f.c"), "LP6108"),
        (FIX.replace("a/d/f.c", "/etc/f.c").replace("b/d/f.c", "/etc/f.c"), "LP6108"),
        (FIX.replace("a/d/f.c", "f.c").replace("b/d/f.c", "f.c"), "LP6108"),
        (FIX.replace("b/d/f.c", "\"b/d/\\056\\056/\\056\\056/f.c\""), "LP6108"),
    ];
    let mut w = World::new(&[("d/f.c", OLD)]);
    for (patch, code) in cases {
        let e = w.apply(&[&patch]).expect_err(&patch);
        assert_eq!((e.problems[0].code.id, e.exit_code()), (code, 4), "{patch}\n{e}");
    }
}

#[test]
fn what_is_no_unified_diff_is_broken() {
    let cases = [
        ("", "no hunk"),
        ("just text\n", "no hunk"),
        ("*** a/d/f.c\n--- b/d/f.c\n***************\n*** 1,2 ****\n", "no hunk"),
        ("@@ -1 +1 @@\n-x\n+y\n", "belongs to no file"),
        (&FIX.replace("-2,5 +2,5", "-2,5 +2,6"), "ends within this hunk"),
        (&FIX.replace("-2,5 +2,5", "-2,4 +2,4"), "no hunk"),
        (&FIX.replace("+FOUR\n", "+FOUR\n+4b\n"), "more lines"),
        (
            &FIX.replace("+FOUR\n", "+FOUR\n\\ No newline at end of file\n\\ No newline at end of file\n"),
            "without an end",
        ),
        (&FIX.replace(" five", "five"), "begins with none of"),
        (&format!("{FIX}\n@@ -8,3 +8,3 @@\n eight\n-nine\n+NINE\n ten\n"), "belongs to no file"),
        (&format!("{FIX}+stray\n"), "more lines"),
        ("diff --cc d/f.c\n@@@ -1,1 -1,1 +1,1 @@@\n- x\n -y\n++z\n", "merge"),
        ("diff --git a/d/f.c b/d/f.c\nindex 1..2\n--- a/d/f.c\n", "belong here"),
        ("--- a/d/f.c\n+++ b/d/f.c\n@@ -1,99999999999999999999 +1 @@\n-x\n", "not the header"),
    ];
    let mut w = World::new(&[("d/f.c", OLD)]);
    for (patch, what) in cases {
        match w.apply(&[patch]) {
            // Fewer lines than the header says are missing a line of context only: the same change.
            Ok(change) => {
                assert_eq!((what, new(&change, "d/f.c")), ("no hunk", OLD.replace("four", "FOUR")), "{patch}")
            }
            Err(e) => {
                assert_eq!((e.problems[0].code.id, e.exit_code()), ("LP6101", 1), "{patch}\n{e}");
                assert!(e.to_string().contains(what), "{what:?} in {e}");
            }
        }
    }
    assert_eq!(apply(&w.source(), &[w.dir.path().join("absent")], &[]).unwrap_err().problems[0].code.id, "LP1004");
}

#[test]
fn mail_around_the_diff_does_not_matter() {
    let mail = format!(
        "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\nFrom: A <a@b>\nSubject: [PATCH] x\n\n\
         Looks like:\n\n@@ -1,2 +1,2 @@\n-a\n+b\n---\n d/f.c | 2 +-\n 1 file changed, 1 insertion(+), 1 deletion(-)\n\n\
         diff --git a/d/f.c b/d/f.c\nindex 123..456 100644\n{FIX}-- \n2.39.2\n\n"
    );
    let mut w = World::new(&[("d/f.c", OLD), ("d/g.c", OLD)]);
    let two = format!("{mail}{}", mail.replace("f.c", "g.c"));
    let change = w.apply(&[&two]).unwrap();
    assert_eq!(change.files.keys().collect::<Vec<_>>(), ["d/f.c", "d/g.c"]);
    // quilt: an Index line and a line of equal signs.
    let quilt = format!("Description: x\n\nIndex: linux/d/f.c\n{}\n{FIX}", "=".repeat(67));
    assert_eq!(w.apply(&[&quilt]).unwrap().files.len(), 1);
    // Git and plain parts in one file.
    let mixed = format!("diff --git a/d/f.c b/d/f.c\n{FIX}{}", FIX.replace("f.c", "g.c"));
    assert_eq!(w.apply(&[&mixed]).unwrap().files.len(), 2);
}

#[test]
fn line_ends_are_kept() {
    // The patch as a whole has CRLF ends: they are not part of the change.
    let mut w = World::new(&[("d/f.c", OLD)]);
    let change = w.apply(&[&FIX.replace('\n', "\r\n")]).unwrap();
    assert_eq!(new(&change, "d/f.c"), OLD.replace("four", "FOUR"));
    // A source with CRLF ends, and a diff of it: the headers have plain ends.
    let crlf = FIX.replace('\n', "\r\n").replace("f.c\r\n", "f.c\n").replace("head\r\n", "head\n");
    let mut w = World::new(&[("d/f.c", &OLD.replace('\n', "\r\n"))]);
    let change = w.apply(&[&crlf]).unwrap();
    assert_eq!(new(&change, "d/f.c"), OLD.replace("four", "FOUR").replace('\n', "\r\n"));
    let (code, text) = w.refused(FIX);
    assert!(code == "LP6102" && text.contains("two\\r"), "{text}");
    // Without a line end at the end of the file.
    let mut w = World::new(&[("d/f.c", "a\nb")]);
    let end = "--- a/d/f.c\n+++ b/d/f.c\n@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+b\n";
    assert_eq!(new(&w.apply(&[end]).unwrap(), "d/f.c"), "a\nb\n");
    let mut w = World::new(&[("d/f.c", "a\nb\n")]);
    assert_eq!(w.refused(end).0, "LP6103");
    let mut w = World::new(&[("d/f.c", "x\nb\n")]);
    assert!(w.refused(end).1.contains("> -b (no line end)"));
    // Context whose only space was stripped, and a last line without its end.
    let mut w = World::new(&[("d/f.c", "a\n\nb\n")]);
    assert_eq!(
        new(&w.apply(&["--- a/d/f.c\n+++ b/d/f.c\n@@ -1,3 +1,3 @@\n-a\n+A\n\n b"]).unwrap(), "d/f.c"),
        "A\n\nb\n"
    );
}

#[test]
fn names_are_those_of_patch_p1() {
    let mut w = World::new(&[("d/f.c", OLD), ("d/a b\u{e9}.c", OLD)]);
    // diff -u f.c.orig f.c, as editors leave it.
    let other = FIX.replace("--- a/d/f.c", "--- a/d/f.c.orig");
    assert_eq!(w.apply(&[&other]).unwrap().files.keys().collect::<Vec<_>>(), ["d/f.c"]);
    let time = FIX.replace("f.c\n", "f.c\t2024-05-01 10:00:00.000000000 +0200\n").replace("a/d", "linux-6.1.orig/./d");
    assert_eq!(w.apply(&[&time]).unwrap().files.keys().collect::<Vec<_>>(), ["d/f.c"]);
    let quoted = FIX.replace("a/d/f.c", "\"a/d/a b\\303\\251.c\"").replace("b/d/f.c", "\"b/d/a b\\303\\251.c\"");
    assert_eq!(w.apply(&[&quoted]).unwrap().files.keys().collect::<Vec<_>>(), ["d/a b\u{e9}.c"]);
}

#[test]
fn links_of_the_source_are_not_followed() {
    let mut w = World::new(&[("real.c", OLD)]);
    fs::create_dir_all(w.source().join("d")).unwrap();
    std::os::unix::fs::symlink("../real.c", w.source().join("d/f.c")).unwrap();
    assert_eq!(w.refused(FIX).0, "LP6106");
}

#[test]
fn digest_tells_contents_and_sides_apart() {
    let digest = |path: &str, old: Option<&str>, new: Option<&str>| {
        let bytes = |s: Option<&str>| s.map(|s| s.as_bytes().to_vec());
        SourceChange::from_contents([(path.into(), bytes(old), bytes(new))]).digest()
    };
    let all = [
        digest("a", Some("x"), Some("y")),
        digest("b", Some("x"), Some("y")),
        digest("a", Some("z"), Some("y")),
        digest("a", Some("x"), Some("z")),
        digest("a", None, Some("y")),
        digest("a", Some(""), Some("y")),
        digest("a", Some("y"), None),
    ];
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
    assert!(all[0].len() == 64 && all[0] == digest("a", Some("x"), Some("y")));
}

/// Pseudo-random edits: what `diff` and `git diff` write is applied to what they were told.
#[test]
fn patches_of_diff_and_git_give_the_new_content() {
    let mut seed = 7_u64;
    let mut random = move |n: usize| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as usize % n
    };
    for round in 0..40 {
        let old: Vec<String> = (0..60).map(|_| format!("line {}\n", random(25))).collect();
        let mut new = old.clone();
        for _ in 0..=random(6) {
            let at = random(new.len());
            match random(3) {
                0 => drop(new.remove(at)),
                1 => new.insert(at, format!("new {}\n", random(9))),
                _ => new[at] = format!("other {}\n", random(9)),
            }
        }
        let (old, mut new) = (old.concat(), new.concat());
        if round % 4 == 0 {
            new.pop();
        }
        let mut w = World::new(&[("d/f.c", &old)]);
        let to = w.dir.path().join("new/d/f.c");
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(&to, &new).unwrap();
        let diffs: [&[&str]; 3] = [&["diff", "-u"], &["diff", "-U1"], &["git", "diff", "--no-index", "--no-prefix"]];
        for words in diffs {
            let mut run = Command::new(words[0]);
            run.args(&words[1..]).args(["source/d/f.c", "new/d/f.c"]).current_dir(w.dir.path());
            let text = String::from_utf8(run.output().unwrap().stdout).unwrap();
            let change = if text.is_empty() { Ok(SourceChange::default()) } else { w.apply(&[&text]) };
            let change = change.unwrap_or_else(|e| panic!("{e}\n{text}"));
            let got =
                change.files.get("d/f.c").map_or(old.clone(), |f| String::from_utf8(f.new.clone().unwrap()).unwrap());
            assert!(got == new && change.moved.is_empty(), "round {round}\n{text}");
        }
    }
}

/// What a fix of upstream has besides: a rename, a binary file, a removed file, documentation, a link, another mode.
const REST: &str = "diff --git a/old/name.c b/new/name.c\nsimilarity index 90%\nrename from old/name.c\nrename to new/name.c\n\
                    --- a/old/name.c\n+++ b/new/name.c\n@@ -1,1 +1,1 @@\n-x\n+y\n\
                    diff --git a/logo.bin b/logo.bin\nindex 12..34 100644\nGIT binary patch\nliteral 3\nKc$@B>0RR91000\n\nliteral 0\nHcmV?d00001\n\n\
                    diff --git a/gone.c b/gone.c\ndeleted file mode 100644\nindex 12..00\n--- a/gone.c\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-diff --git a/x b/x\n\
                    diff --git a/run.sh b/run.sh\nold mode 100644\nnew mode 100755\n\
                    diff --git a/Documentation/f.rst b/Documentation/f.rst\n--- a/Documentation/f.rst\n+++ b/Documentation/f.rst\n@@ -1,1 +1,1 @@\n-a\n+b\n";

#[test]
fn what_cannot_be_applied_is_left_out_by_its_name() {
    let fix = format!("diff --git a/d/f.c b/d/f.c\n{FIX}");
    let whole = format!("{REST}{fix}");
    let names = ["new/name.c", "logo.bin", "gone.c", "run.sh", "Documentation/"];
    let mut w = World::new(&[("d/f.c", OLD)]);
    let change = w.leave(&[&whole], &names).unwrap();
    assert_eq!(change.files.keys().collect::<Vec<_>>(), ["d/f.c"]);
    let out: Vec<String> = change.left_out.iter().map(|l| format!("{}: {}", l.file, l.what)).collect();
    let all = [
        "new/name.c: rename from old/name.c, and its 1 hunk(s)",
        "logo.bin: the file is binary",
        "gone.c: the file is deleted, and its 1 hunk(s)",
        "run.sh: old mode 100644",
        "Documentation/f.rst: its only hunk",
    ];
    assert_eq!(out, all);
    assert!(change.left_out.iter().all(|l| l.patch == "1.patch"));
    // Each of them alone is in the way.
    for left in 0..4 {
        let but: Vec<&str> = names.iter().enumerate().filter(|(i, _)| *i != left).map(|(_, n)| *n).collect();
        let code = w.leave(&[&whole], &but).unwrap_err().problems[0].code.id;
        assert_eq!(code, ["LP6105", "LP6107", "LP6104", "LP6106"][left]);
    }
    // The old name of a renamed file will do, and plain diffs.
    assert!(w.leave(&[&whole], &["old/name.c", "logo.bin", "gone.c", "run.sh", "Documentation/f.rst"]).is_ok());
    let plain = format!(
        "Binary files a/logo.bin and b/logo.bin differ\n--- a/gone.c\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-x\n{FIX}"
    );
    assert_eq!(w.leave(&[&plain], &["logo.bin", "gone.c"]).unwrap().left_out.len(), 2);
}

#[test]
fn hunks_are_left_out_by_their_number() {
    let two = format!("{FIX}@@ -8,3 +8,3 @@\n eight\n-nine\n+NINE\n ten\n");
    let third = "--- a/d/f.c\n+++ b/d/f.c\n@@ -1,2 +1,2 @@\n-one\n+ONE\n two\n";
    let mut w = World::new(&[("d/f.c", OLD)]);
    let mut made =
        |leave: &[&str]| w.leave(&[&two, third], leave).map(|c| (new(&c, "d/f.c"), c.left_out, c.moved.len()));
    let (text, out, moved) = made(&["d/f.c:1"]).unwrap();
    assert_eq!((text, moved), (OLD.replace("nine", "NINE").replace("one", "ONE"), 0));
    assert_eq!((out[0].what.as_str(), out.len()), ("hunk 1 (@@ -2,5 +2,5 @@ head)", 1));
    // Counted over all patches.
    let (text, out, _) = made(&["d/f.c:3", "d/f.c:2"]).unwrap();
    assert_eq!((text, out[1].patch.as_str()), (OLD.replace("four", "FOUR"), "4.patch"));
    for (leave, why) in [
        (&["d/f.c:4"][..], "the patches have 3 hunk(s) of this file"),
        (&["d/g.c"], "the patches have no such file; they have d/f.c"),
        (&["d/f.c:1", "d/f.c:2", "d/f.c:3"], "nothing of it is left"),
        (&["d/"], "nothing of it is left"),
        (&["../x"], "is not a file of the source"),
    ] {
        let e = made(leave).unwrap_err();
        assert!(e.problems[0].code.id == "LP6109" && e.to_string().contains(why), "{leave:?}: {e}");
    }
}

/// What follows a part that is left out is of other files, with or without a header of git's.
#[test]
fn nothing_but_what_is_named_is_left_out() {
    let binary = "diff --git a/logo.bin b/logo.bin\nindex 12..34 100644\nGIT binary patch\nliteral 3\nKc$@B>0RR91000\n\nliteral 0\nHcmV?d00001\n\n";
    let rename = "diff --git a/logo.bin b/l.bin\nsimilarity index 100%\nrename from logo.bin\nrename to l.bin\n";
    let gone = "diff --git a/logo.bin b/logo.bin\ndeleted file mode 100644\nindex 12..00\n--- a/logo.bin\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-x\n";
    let bare = "diff --git a/logo.bin b/logo.bin\ndeleted file mode 100644\nindex e69de29..0000000\n";
    let mode = "diff --git a/logo.bin b/logo.bin\nold mode 100644\nnew mode 100755\n";
    let mail = "-- \n2.39.2\nFrom 2 Mon Sep 17\nSubject: x\n---\n";
    for part in [binary, rename, gone, bare, mode] {
        for between in ["", mail, "diff -up a/d/f.c b/d/f.c\n", "Index: d/f.c\n====\n"] {
            let mut w = World::new(&[("d/f.c", OLD)]);
            let change = w.leave(&[&format!("{part}{between}{FIX}")], &["logo.bin"]).unwrap();
            assert_eq!((change.files.len(), change.left_out.len()), (1, 1), "{part}{between}");
        }
    }
    // The hunks of the file itself go with it, and that is said.
    let both =
        format!("diff --git a/d/f.c b/d/f.c\nold mode 100644\nnew mode 100755\n{FIX}{}", FIX.replace("d/f.c", "d/g.c"));
    let mut w = World::new(&[("d/f.c", OLD), ("d/g.c", OLD)]);
    let change = w.leave(&[&both], &["d/f.c"]).unwrap();
    assert_eq!(change.left_out[0].what, "old mode 100644, and its 1 hunk(s)");
    assert_eq!(change.files.keys().collect::<Vec<_>>(), ["d/g.c"]);
    // An empty new file has no hunks, and the next file is another one.
    let empty = format!("diff --git a/e.c b/e.c\nnew file mode 100644\nindex 0000000..e69de29\n{FIX}");
    let change = World::new(&[("d/f.c", OLD)]).apply(&[&empty]).unwrap();
    assert_eq!(new(&change, "d/f.c"), OLD.replace("four", "FOUR"));
    let turned = FIX.replace("b/d/f.c", "\"b/d/\\033[31m\\342\\200\\256f.c\"");
    let e = World::new(&[("d/f.c", OLD)]).apply(&[&turned]).unwrap_err();
    assert!(e.problems[0].code.id == "LP6108" && !e.to_string().contains('\u{1b}'), "{e}");
}

/// A hunk of a later patch belongs where it says once what is missing is reckoned with, or nowhere.
#[test]
fn what_was_left_out_is_reckoned_with() {
    let block = "one\ntwo\nthree\nfour\nend\n";
    let old = format!("{block}{block}");
    let first = "--- a/d/f.c\n+++ b/d/f.c\n@@ -1,2 +1,7 @@\n+a\n+b\n+c\n+d\n+e\n one\n two\n";
    let second = "--- a/d/f.c\n+++ b/d/f.c\n@@ -12,4 +12,4 @@\n two\n three\n-four\n+FOUR\n end\n";
    let mut w = World::new(&[("d/f.c", &old)]);
    let with = new(&w.leave(&[first, second], &[]).unwrap(), "d/f.c");
    assert_eq!(with, format!("a\nb\nc\nd\ne\n{block}{}", block.replace("four", "FOUR")));
    let without = new(&w.leave(&[first, second], &["d/f.c:1"]).unwrap(), "d/f.c");
    assert_eq!(without, format!("{block}{}", block.replace("four", "FOUR")));
    let astray = second.replace("-12,4 +12,4", "-13,4 +13,4");
    let e = w.leave(&[first, &astray], &["d/f.c:1"]).unwrap_err();
    assert!(e.to_string().contains("hunk 2") && e.to_string().contains("which is meant"), "{e}");
}
