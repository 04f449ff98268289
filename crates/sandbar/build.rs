//! Links the binary statically where the machine has what that takes (docs/adr/0007).
//!
//! A sandboxed run starts this program once and forks its keeper three times, so what the dynamic loader does (one
//! third of the time from exec(2) to `main`, and a hundred page faults) counts in every run. Cargo offers static
//! linking only together with an explicit target, which moves `target/release`, and for everything at once,
//! procedural macros included; so this program's own link command is told instead. Where a static library is
//! missing, and on targets that this was not tried on, the binary is linked as usual.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The libraries that the standard library asks the linker for, and which file of the compiler's has each.
const LIBRARIES: [(&str, &str); 7] = [
    ("libgcc_s.a", "libgcc_eh.a"),
    ("libc.a", "libc.a"),
    ("libm.a", "libm.a"),
    ("libpthread.a", "libpthread.a"),
    ("libdl.a", "libdl.a"),
    ("librt.a", "librt.a"),
    ("libutil.a", "libutil.a"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SANDBAR_LINK");
    let is_wanted = std::env::var_os("SANDBAR_LINK").is_none_or(|how| how != "dynamic");
    let target = std::env::var("TARGET")?;
    if is_wanted && target == "x86_64-unknown-linux-gnu" && std::env::var("HOST")? == target {
        let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
        if let Some(found) = find_libraries() {
            link_statically(&out, &found)?;
        }
    }
    Ok(())
}

/// Where the compiler has every one of the libraries.
fn find_libraries() -> Option<Vec<(&'static str, PathBuf)>> {
    LIBRARIES.iter().map(|&(name, file)| Some((name, find_library(file)?))).collect()
}

fn find_library(file: &str) -> Option<PathBuf> {
    let output = Command::new("cc").arg(format!("-print-file-name={file}")).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    // A file that is not found is printed as it was asked for.
    (path.is_absolute() && path.exists()).then_some(path)
}

fn link_statically(out: &Path, libraries: &[(&str, PathBuf)]) -> Result<(), Box<dyn Error>> {
    for (name, file) in libraries {
        let link = out.join(name);
        if link.symlink_metadata().is_ok() {
            std::fs::remove_file(&link)?;
        }
        std::os::unix::fs::symlink(file, &link)?;
    }
    let arguments = [
        "-static-pie".to_owned(),
        // Searched before the compiler's own directories, which have the shared libraries beside the static ones.
        format!("-L{}", out.display()),
        // Nobody resolves symbols at run time, so a weak one that is missing must be null by then.
        "-Wl,-z,nodynamic-undefined-weak".to_owned(),
    ];
    for argument in arguments {
        println!("cargo::rustc-link-arg-bin=sandbar={argument}");
    }
    Ok(())
}
