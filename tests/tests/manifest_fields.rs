//! Every value of a bound manifest changed, one at a time: refused where the folder is read or held against the image, or
//! where the records are compared; or a text that nothing goes by.

mod support;

use std::path::Path;

use lpbuild::backend::detour;
use lpbuild::error::Error;
use lpbuild::holder::HolderName;
use lpbuild::kernel::KernelImage;
use lpbuild::pipeline;
use lpbuild::plan::Source;
use lpbuild::plan::manifest::Manifest;
use lpbuild::{codes, pack};
use lpbuild_tests::built_lpbuild;
use support::compile::{Recipe, Variant, compile};
use support::image::{Names, link};
use support::values::changed;
use toml::Value;

/// Keys nothing is done by, and what they are.
const TEXTS: &[(&str, &str)] = &[
    ("patch.description", "what the author says of it"),
    ("function.why", "what differed first, for people"),
    ("function.source", "which object file it came from"),
    ("carried", "a list of what is in patch.o, whose hash is compared"),
    ("symbol.source", "which object file refers to it"),
    ("symbol (", "one left out of the list: what patch.o refers to is in patch.o, whose hash is compared"),
    ("input", "the objects that were compared; where they are beside it, folder::objects compares them"),
];

const SOURCE: &str = r#"
int _printk(const char *fmt, ...);
int take(long a, long b);
int handle(void *p);
extern int level;
static int hits;
static int __attribute__((noinline)) twin(long n) { hits++; return take(n, 1) + hits; }
static int __attribute__((noinline, cold)) rare(long n) { handle(&hits); return _printk("rare %ld\n", n); }
int check(long n)
{
#ifdef NEW
	take(n, 4);
#endif
	if (__builtin_expect(n == 77, 0)) {
		rare(n);
		_printk("seventy-seven\n");
		level = 1;
	}
	return twin(n) + level + handle((void *)"kept");
}
"#;

struct Bound {
    folder: tempfile::TempDir,
    manifest: Value,
    patch_o: Vec<u8>,
    image: KernelImage,
}

fn bound() -> Bound {
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work/deep");
    std::fs::create_dir_all(&work).unwrap();
    let file = work.join("check.c");
    std::fs::write(&file, SOURCE).unwrap();
    let recipe = Recipe { variant: Variant::Plain, fentry: true, flags: vec!["-freorder-blocks-and-partition".into()] };
    let object = |define: &str| compile(&file, &recipe, define, &work.join("out.o"));
    let (old, new) = (object(""), object("NEW"));
    let mut options = support::options();
    options.after = vec!["earlier".into()];
    options.replaces = vec!["former".into()];
    options.description = "what it is for".into();
    let source = Source {
        name: "check.o".into(),
        old_path: file.clone(),
        new_path: file.clone(),
        old: old.clone(),
        new: new.clone(),
        holder: HolderName::Vmlinux,
    };
    let image = link(&[old], &[new], &Names::default(), &work).file;
    std::fs::write(folder.path().join("image"), &image).unwrap();
    let image = KernelImage::from_bytes("image", image).unwrap();
    let mut analysis = pipeline::analyse(&[source], &options).unwrap();
    let output = pipeline::produce(&mut analysis, Some(&image), &options).unwrap_or_else(|e| panic!("{e}"));
    let text = output.manifest.to_toml().unwrap();
    let bound = Bound { manifest: text.parse::<toml::Table>().unwrap().into(), patch_o: output.patch_o, image, folder };
    bound.write(&text);
    bound
}

impl Bound {
    fn patch(&self) -> std::path::PathBuf {
        self.folder.path().join("patch")
    }

    fn write(&self, manifest: &str) {
        std::fs::create_dir_all(self.patch()).unwrap();
        std::fs::write(self.patch().join("manifest.toml"), manifest).unwrap();
        std::fs::write(self.patch().join("patch.o"), &self.patch_o).unwrap();
    }

    /// What `pack --kernel` finds before it makes a module, and what it would find in the module.
    fn refused(&self, manifest: &Value) -> Vec<String> {
        let text = toml::to_string(manifest).unwrap();
        self.write(&text);
        let mut found = problems(pack::check(&detour::Runtime::default(), &self.patch(), (&self.image).into()));
        if let Ok(m) = Manifest::parse(&text, "manifest.toml") {
            let records = detour::record_contradictions("patch.o", &self.patch_o, &text, &m);
            // patch.o has no .modinfo yet: kbuild makes it of the manifest.
            let records = records.iter().filter(|p| p.code.id != "LP4007");
            found.extend(records.map(|p| p.to_string()));
        }
        found
    }
}

fn problems(result: Result<(), Error>) -> Vec<String> {
    result.err().map_or(Vec::new(), |e| e.problems.iter().map(ToString::to_string).collect())
}

#[test]
fn every_value_of_a_manifest_is_held_against_something() {
    let bound = bound();
    assert_eq!(bound.refused(&bound.manifest), [""; 0]);
    let all = changed(&bound.manifest);
    let (mut passed, mut refused) = (Vec::new(), 0);
    for (path, manifest) in &all {
        if !bound.refused(manifest).is_empty() {
            refused += 1;
        } else if !TEXTS.iter().any(|(key, _)| path.starts_with(key)) {
            passed.push(path);
        }
    }
    assert!(passed.is_empty(), "{passed:#?} change nothing that is looked at");
    for key in
        ["function.anchor-offset", "function.site.original", "function.piece", "import", "kernel.anchor", "symbol"]
    {
        assert!(all.iter().any(|(path, _)| path.starts_with(key)), "{key} is not in the manifest of this test");
    }
    println!("{refused} of {} changes are refused, the others are texts", all.len());
}

#[test]
fn other_ways_to_resolve_do_not_pass_for_another_address() {
    let bound = bound();
    let mut manifest = bound.manifest.clone();
    manifest["symbol"].as_array_mut().unwrap()[0]["resolved"] = "percpu".into();
    assert!(!bound.refused(&manifest).is_empty());
    manifest["symbol"].as_array_mut().unwrap()[0]["resolved"] = "symbolic".into();
    assert!(!bound.refused(&manifest).is_empty());
}

/// As a user sees it: a clear code, and what was there before is left alone.
#[test]
fn a_manifest_changed_by_hand_leaves_the_module_alone() {
    let bound = bound();
    let text = toml::to_string(&bound.manifest).unwrap();
    let run = |dir: &Path| {
        let mut c = std::process::Command::new(built_lpbuild());
        c.arg("pack").arg(dir).arg("--kernel").arg(bound.folder.path().join("image"));
        let done = c.output().unwrap();
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let offset = bound.manifest["function"][0]["anchor-offset"].as_integer().unwrap();
    let name = bound.manifest["function"][0]["symbol"].as_str().unwrap().to_owned();
    let edits = [
        (format!("anchor-offset = {offset}"), format!("anchor-offset = {}", offset + 16)),
        (format!("symbol = \"{name}\""), "symbol = \"handle\"".to_owned()),
        ("rule = \"after-fentry\"".to_owned(), "rule = \"entry\"".to_owned()),
    ];
    for (from, to) in edits {
        assert!(text.contains(&from), "{from} in {text}");
        bound.write(&text.replacen(&from, &to, 1));
        std::fs::write(bound.patch().join("corpus.ko"), "from before").unwrap();
        let (exit, said) = run(&bound.patch());
        assert_eq!(exit, Some(4), "{to}: {said}");
        assert!(said.contains("LP4014"), "{to}: {said}");
        assert_eq!(std::fs::read(bound.patch().join("corpus.ko")).unwrap(), b"from before");
    }
    let mut other = bound.patch_o.clone();
    *other.last_mut().unwrap() ^= 1;
    bound.write(&text);
    std::fs::write(bound.patch().join("patch.o"), other).unwrap();
    let (exit, said) = run(&bound.patch());
    assert!(exit == Some(4) && said.contains("LP4013"), "{said}");
    assert!(codes::find("LP4013").is_some() && codes::find("LP4014").is_some());
}
