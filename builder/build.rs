//! Embeds the compiled runtime when `LPBUILD_RUNTIME_OBJ` names it; `cargo xtask build` sets it.
//!
//! Without it the builder still compiles and does everything but `pack`, which then says what is missing.

use std::{env, fs, path::Path};

fn main() {
    println!("cargo::rerun-if-env-changed=LPBUILD_RUNTIME_OBJ");
    println!("cargo::rerun-if-changed=build.rs");
    let value = match env::var("LPBUILD_RUNTIME_OBJ") {
        Ok(path) if !path.is_empty() => {
            println!("cargo::rerun-if-changed={path}");
            format!("Some(include_bytes!({path:?}))")
        }
        _ => "None".to_owned(),
    };
    let text =
        format!("/// The runtime object, when this build has one.\npub const RUNTIME: Option<&[u8]> = {value};\n");
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    fs::write(Path::new(&out).join("runtime.rs"), text).expect("cargo makes OUT_DIR writable");
}
