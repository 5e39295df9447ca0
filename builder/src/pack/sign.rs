//! Signs a module with the kernel's `sign-file`, the way a kernel that enforces signatures wants it
//! (Documentation/admin-guide/module-signing.rst). A signature is appended, so this comes last.

use std::fs;

use super::{Signer, headers::Headers};
use crate::codes;
use crate::error::{Error, Place, Result};
use crate::tool::{self, Log};

/// What `sign-file` appends last (include/linux/module_signature.h, scripts/sign-file.c).
const MARK: &[u8] = b"~Module signature appended~\n";

pub(super) fn sign(module: &[u8], headers: &Headers, signer: &Signer, log: &Log) -> Result<Vec<u8>> {
    let program = headers.script("sign-file");
    if !program.is_file() {
        return Err(Error::new(codes::LP4008, Place::object(program.display().to_string()), "not there"));
    }
    let temp = tempfile::tempdir().map_err(|e| Error::io(&std::env::temp_dir(), &e))?;
    let file = temp.path().join("module.ko");
    fs::write(&file, module).map_err(|e| Error::io(&file, &e))?;
    let mut c = tool::command(&program);
    // A key with a passphrase or on a token (scripts/sign-file.c).
    if let Some(pin) = std::env::var_os("KBUILD_SIGN_PIN") {
        c.env("KBUILD_SIGN_PIN", pin);
    }
    log.run(c.arg(&headers.sign_hash).arg(&signer.key).arg(&signer.cert).arg(&file), codes::LP4008)?;
    let signed = fs::read(&file).map_err(|e| Error::io(&file, &e))?;
    if signed.starts_with(module) && signed.ends_with(MARK) {
        return Ok(signed);
    }
    Err(Error::new(codes::LP4008, Place::object(program.display().to_string()), "it appended no signature"))
}
