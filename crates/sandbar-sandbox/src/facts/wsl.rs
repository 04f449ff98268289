//! Whether this is Windows' first subsystem for Linux, which has no namespaces, no Landlock and no filters to rely on.

/// What tells the kernel's builder and release; proc_version(5).
pub(super) const FILE: &str = "/proc/version";

/// Whether `version`, the text of `/proc/version`, is that of WSL 1.
///
/// A number behind `wsl` decides, since kernels say which they are; without one, Microsoft's kernels of WSL 2 call
/// themselves `microsoft-standard`, and those of WSL 1 do not.
#[must_use]
pub fn is_wsl1(version: &str) -> bool {
    let version = version.to_ascii_lowercase();
    generation(&version).map_or_else(
        || version.contains("microsoft") && !version.contains("microsoft-standard"),
        |generation| generation == 1,
    )
}

/// The number behind the first `wsl` that has one.
fn generation(version: &str) -> Option<u64> {
    version.match_indices("wsl").find_map(|(at, word)| {
        let behind = &version[at + word.len()..];
        let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
        // More digits than a number has are none that could be 1.
        (digits > 0).then(|| behind[..digits].parse().unwrap_or(u64::MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_behind_wsl_decides_and_else_the_name_of_the_kernel() {
        let table = [
            (
                "Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com) (gcc version 5.4.0 (GCC) ) #1237",
                true,
            ),
            ("Linux version 4.4.0-43-Microsoft (Microsoft@Microsoft.com)", true),
            (
                "Linux version 5.15.90.1-microsoft-standard-WSL2 (oe-user@oe-host) (x86_64-msft-linux-gcc)",
                false,
            ),
            ("Linux version 4.19.104-microsoft-standard (oe-user@oe-host)", false),
            ("Linux version 6.6.36.3-microsoft-standard-WSL2+ (root@b) Microsoft", false),
            ("Linux version 6.1.0-own-wsl1 (me@here)", true),
            ("Linux version 6.1.0-own-wsl2-for-wsl1 (Microsoft@Microsoft.com)", false),
            ("Linux version 6.1.0-own-wsl-wsl1 (me@here)", true),
            ("Linux version 6.1.0-own-wsl3-Microsoft", false),
            ("Linux version 6.1.0-wsl99999999999999999999999 Microsoft", false),
            ("Linux version 6.18.44 (builder@example) (gcc 14) #1 SMP", false),
            ("", false),
        ];
        for (version, expected) in table {
            assert_eq!(is_wsl1(version), expected, "{version}");
        }
    }
}
