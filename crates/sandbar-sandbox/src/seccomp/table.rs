//! Names and numbers of system calls.
//!
//! Kernel names, not those of the C library: `umount2`, `newfstatat`, `pread64`.

use super::{table_aarch64, table_x86_64};

/// Number above every number in the tables; 470 was free in Linux 6.18.
pub(super) const LIMIT: usize = 470;

/// An architecture with its own numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm, little-endian.
    Aarch64,
}

impl Arch {
    /// The architecture that this program was built for; absent, so that nothing builds that would run without
    /// a filter, where there is no table.
    #[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
    #[must_use]
    pub const fn native() -> Self {
        if cfg!(target_arch = "x86_64") { Self::X86_64 } else { Self::Aarch64 }
    }

    /// `AUDIT_ARCH_X86_64` or `AUDIT_ARCH_AARCH64` of linux/audit.h.
    pub(super) const fn audit_number(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// Every call of the architecture, sorted by name.
    pub(super) const fn table(self) -> &'static [(&'static str, u32)] {
        match self {
            Self::X86_64 => table_x86_64::TABLE,
            Self::Aarch64 => table_aarch64::TABLE,
        }
    }
}

/// Returns the number of the call `name`, or `None` if `arch` does not have it.
pub(super) fn number(name: &str, arch: Arch) -> Option<u32> {
    let table = arch.table();
    table.binary_search_by_key(&name, |&(name, _)| name).ok().map(|index| table[index].1)
}
