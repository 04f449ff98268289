//! What a file keeps when its content is replaced by another file's: owner, group, mode, extended attributes.

use std::ffi::{CStr, CString};

use rustix::fd::AsFd;
use rustix::fs::{
    Gid, Mode, Stat, Uid, XattrFlags, fchmod, fchown, fgetxattr, flistxattr, fremovexattr, fsetxattr, fstat,
};
use rustix::io::Errno;

/// The bits of a mode that are kept. Set-user-id and set-group-id go, as write(2) takes them from a file.
const KEPT_BITS: u32 = 0o1777;

/// Largest value of an attribute, and largest list of names: XATTR_SIZE_MAX and XATTR_LIST_MAX of Linux.
const MAX_XATTR_BYTES: usize = 64 * 1024;

/// Gives `new` what `old` has.
///
/// # Errors
/// The first that could not be kept. The owner comes first, so that nothing else was changed when it is the owner.
pub(crate) fn carry(old: impl AsFd, stat: &Stat, new: impl AsFd) -> Result<(), Errno> {
    let made = fstat(&new)?;
    let uid = (made.st_uid != stat.st_uid).then(|| Uid::from_raw(stat.st_uid));
    let gid = (made.st_gid != stat.st_gid).then(|| Gid::from_raw(stat.st_gid));
    if uid.is_some() || gid.is_some() {
        fchown(&new, uid, gid)?;
    }
    carry_xattrs(old, &new)?;
    fchmod(&new, Mode::from_raw_mode(stat.st_mode & KEPT_BITS))
}

fn carry_xattrs(old: impl AsFd, new: impl AsFd) -> Result<(), Errno> {
    let (kept, made) = (names(&old)?, names(&new)?);
    // What the directory gave the new file by default, such as an access list, is not what the old file had.
    for name in made.iter().filter(|name| !kept.contains(name)) {
        fremovexattr(&new, name.as_c_str())?;
    }
    for name in &kept {
        let value = value(&old, name)?;
        if made.contains(name) && self::value(&new, name)? == value {
            continue;
        }
        fsetxattr(&new, name.as_c_str(), &value, XattrFlags::empty())?;
    }
    Ok(())
}

/// Attributes that belong to the content's old life: capabilities are taken from a file that is written to
/// (capabilities(7)), measurements and signatures are of the old content.
const DROPPED: [&CStr; 3] = [c"security.capability", c"security.ima", c"security.evm"];

fn names(file: impl AsFd) -> Result<Vec<CString>, Errno> {
    let mut list = Vec::with_capacity(MAX_XATTR_BYTES);
    match flistxattr(file, rustix::buffer::spare_capacity(&mut list)) {
        Ok(_) => {}
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    }
    let names = list.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let names = names.filter_map(|name| CString::new(name).ok());
    Ok(names.filter(|name| !DROPPED.contains(&name.as_c_str())).collect())
}

fn value(file: impl AsFd, name: &CStr) -> Result<Vec<u8>, Errno> {
    let mut value = Vec::with_capacity(MAX_XATTR_BYTES);
    fgetxattr(file, name, rustix::buffer::spare_capacity(&mut value))?;
    Ok(value)
}
