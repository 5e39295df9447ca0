//! A structure that gets a field in its middle: refused as it is, accepted by name where only the changed functions use it, and
//! then loaded into the stock kernels.

use std::path::Path;

use harness::module::Module;
use harness::vm::Vm;
use lpbuild_tests::Env;

/// A directory's entries go through a structure on the stack of getdents64. The field in front moves all others.
const PATCH: &str = r#"--- a/fs/readdir.c
+++ b/fs/readdir.c
@@ -302,5 +302,6 @@
 struct getdents_callback64 {
 	struct dir_context ctx;
+	long hidden;
 	struct linux_dirent64 __user * current_dir;
 	int prev_reclen;
 	int count;
@@ -317,5 +318,9 @@
 		sizeof(u64));
 	int prev_reclen;
 
+	if (namlen == 6 && !memcmp(name, "secret", 6)) {
+		buf->hidden++;
+		return true;
+	}
 	buf->error = verify_dirent_name(name, namlen);
 	if (unlikely(buf->error))
"#;

const SCRIPT: &str = r#"
mkdir /tmp/d
touch /tmp/d/plain /tmp/d/secret
ktext save /tmp/text
for round in 1 2 3; do
    expect before 'plain secret' "$(echo $(ls /tmp/d))"
    lpbuild load /accepted.ko
    expect patched plain "$(echo $(ls /tmp/d))"
    lpbuild unload accepted
    expect after 'plain secret' "$(echo $(ls /tmp/d))"
    ktext diff /tmp/text
done
"#;

fn run(name: &str, series: &str) {
    let Some((env, lpbuild)) = Env::series_with_lpbuild(name, series) else { return };
    let maker = env.maker(&lpbuild);
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let patch = put("field.patch", PATCH);
    let refused = maker.build(&[&patch], &folder.path().join("out")).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{said}");
    for text in ["LP2015", "struct getdents_callback64", "long int hidden", "  old, ", "  new, "] {
        assert!(said.contains(text), "no {text:?} in {said}");
    }
    assert!(!folder.path().join("out").exists());

    let toml = "[patch]\nname = \"accepted\"\npatches = [\"field.patch\"]\n[accept]\ntypes = [\"struct getdents_callback64\"]\n";
    let toml = put("livepatch.toml", toml);
    // Tests run side by side: each has a folder of its own.
    let module =
        maker.make_patch(&format!("accepted_{}", series.replace('.', "_")), &toml).unwrap_or_else(|e| panic!("{e:#}"));
    assert!(module.report.contains("accepted type=struct getdents_callback64"), "{}", module.report);
    boot(name, &env, &lpbuild, &module);
}

fn boot(name: &str, env: &Env, lpbuild: &Path, module: &Module) {
    let ko = format!("/{}.ko", module.name);
    let vm = Vm::new(&name.replace('_', "-"), &env.kernel).file("/bin/lpbuild", lpbuild).file(&ko, &module.ko);
    vm.case(&SCRIPT.replace("accepted", &module.name))
        .run()
        .unwrap()
        .require_pass()
        .unwrap_or_else(|e| panic!("{e:#}"));
}

#[test]
fn a_type_only_changed_functions_use_is_accepted() {
    run("a_type_only_changed_functions_use_is_accepted", "6.1");
}

#[test]
fn a_type_only_changed_functions_use_is_accepted_on_6_12() {
    run("a_type_only_changed_functions_use_is_accepted_on_6_12", "6.12");
}
