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
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let is_wanted = std::env::var_os("SANDBAR_LINK").is_none_or(|how| how != "dynamic");
    let target = std::env::var("TARGET")?;
    if is_wanted && target == "x86_64-unknown-linux-gnu" && std::env::var("HOST")? == target {
        let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
        match find_libraries() {
            Ok(found) => link_statically(&out, &found)?,
            Err(missing) => println!(
                "cargo::warning=sandbar is linked dynamically, which makes every run slower: {missing} was not found"
            ),
        }
    }
    Ok(())
}

/// Where the compiler has every one of the libraries, or the first that it has not.
fn find_libraries() -> Result<Vec<(&'static str, PathBuf)>, &'static str> {
    LIBRARIES.iter().map(|&(name, file)| Ok((name, find_library(file).ok_or(file)?))).collect()
}

fn find_library(file: &str) -> Option<PathBuf> {
    // The linker that is configured (cargo sets this), which links in the end and so has to have them.
    let linker = std::env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let output = Command::new(linker).arg(format!("-print-file-name={file}")).output().ok()?;
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
