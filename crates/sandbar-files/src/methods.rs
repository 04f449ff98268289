//! The dialect's methods by their names: parameters in, result out, as JSON.
//!
//! A request that carries a sandbox is refused: whoever hands it on has decided where it is carried out, and takes the
//! member away. Nothing that asks for protection is ever passed over.

use std::borrow::Cow;

use sandbar_proto::AbsPath;
use sandbar_proto::base64;
use sandbar_proto::exec::{
    CopyParams, CreateDirectoryParams, FileHandle, FileSystemSandbox, LegacyPolicy, OpenParams, PathParams,
    ReadFileParams, RemoveParams, WalkParams, WatchMissingParams, Watching, WriteFileParams, Written, method,
};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    Ancestors, Atomicity, Directories, ErrorKind, Expected, FileError, FileReader, Files, Handles, Links,
    RemoveOptions, Watch, WatchKey, Watches, WriteOptions, content,
};

/// Which part of this crate carries out a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// [`Files`]: it needs no memory between two calls.
    Files,
    /// [`Handles`] of the connection.
    Handles,
    /// [`Watches`].
    Watches,
}

/// Who carries out a method; none if it is no method of files.
#[must_use]
pub fn part_for(method: &str) -> Option<Part> {
    match method {
        method::FS_READ_FILE
        | method::FS_WRITE_FILE
        | method::FS_CREATE_DIRECTORY
        | method::FS_GET_METADATA
        | method::FS_CANONICALIZE
        | method::FS_READ_DIRECTORY
        | method::FS_WALK
        | method::FS_REMOVE
        | method::FS_COPY => Some(Part::Files),
        method::FS_OPEN | method::FS_READ_BLOCK | method::FS_WRITE_BLOCK | method::FS_CLOSE => {
            Some(Part::Handles)
        }
        method::FS_WATCH_MISSING => Some(Part::Watches),
        _ => None,
    }
}

impl Files {
    /// Carries out a method of [`Part::Files`].
    ///
    /// # Errors
    /// [`ErrorKind::UnknownMethod`], [`ErrorKind::InvalidParams`], and those of the method.
    pub fn call(&self, method: &str, params: &RawValue) -> Result<Box<RawValue>, FileError> {
        match method {
            method::FS_READ_FILE => {
                let (path, links) = read_file_params(params)?;
                self.say(FileReader::open(&path, links).and_then(content::whole))
            }
            method::FS_WRITE_FILE => {
                let (path, options, content) = write_file_params(params)?;
                let hash = self.write_file(&path, &content, options)?;
                to_json(&Written { hash })
            }
            method::FS_CREATE_DIRECTORY => {
                let CreateDirectoryParams { path, recursive, sandbox, sandbox_policy } = from_json(params)?;
                decided(&sandbox, &sandbox_policy)?;
                let ancestors = if recursive.unwrap_or(true) { Ancestors::Make } else { Ancestors::Require };
                to_json(&self.create_directory(&path.0, ancestors).map(|()| Nothing {})?)
            }
            method::FS_GET_METADATA => {
                let (path, links) = path_params(params)?;
                to_json(&self.metadata(&path, links)?)
            }
            method::FS_CANONICALIZE => to_json(&self.canonicalize(&path_params(params)?.0)?),
            method::FS_READ_DIRECTORY => {
                let (path, links) = path_params(params)?;
                to_json(&self.read_directory(&path, links)?)
            }
            method::FS_WALK => {
                let WalkParams { path, options, sandbox, sandbox_policy } = from_json(params)?;
                decided(&sandbox, &sandbox_policy)?;
                to_json(&self.walk(&path.0, &options)?)
            }
            method::FS_REMOVE => {
                let RemoveParams { path, recursive, force, sandbox, sandbox_policy } = from_json(params)?;
                decided(&sandbox, &sandbox_policy)?;
                let usual = RemoveOptions::default();
                let options = RemoveOptions {
                    recursive: recursive.unwrap_or(usual.recursive),
                    force: force.unwrap_or(usual.force),
                };
                to_json(&self.remove(&path.0, options).map(|()| Nothing {})?)
            }
            method::FS_COPY => {
                let CopyParams { source_path, destination_path, recursive, sandbox, sandbox_policy } =
                    from_json(params)?;
                decided(&sandbox, &sandbox_policy)?;
                let directories = if recursive { Directories::Recurse } else { Directories::Refuse };
                to_json(&self.copy(&source_path.0, &destination_path.0, directories).map(|()| Nothing {})?)
            }
            _ => Err(unknown_method(method)),
        }
    }
}

impl Handles {
    /// Carries out a method of [`Part::Handles`].
    ///
    /// # Errors
    /// As [`Files::call`].
    pub fn call(&mut self, method: &str, params: &RawValue) -> Result<Box<RawValue>, FileError> {
        match method {
            method::FS_OPEN => {
                let OpenParams { handle_id, path, mode, sandbox, sandbox_policy } = from_json(params)?;
                decided(&sandbox, &sandbox_policy)?;
                self.open(&handle_id, &path.0, mode)?;
                to_json(&FileHandle { handle_id })
            }
            method::FS_READ_BLOCK => {
                let BlockPlace { handle_id, offset, len, .. } =
                    from_json::<BlockPlace<'_>>(params)?.without_sandbox()?;
                self.read_block_json(&handle_id, offset, len)
            }
            method::FS_WRITE_BLOCK => {
                let BlockText { handle_id, offset, chunk, .. } =
                    from_json::<BlockText<'_>>(params)?.without_sandbox()?;
                to_json(&self.write_block_text(&handle_id, offset, &chunk).map(|()| Nothing {})?)
            }
            method::FS_CLOSE => {
                let OfHandle { handle_id, .. } = from_json::<OfHandle<'_>>(params)?.without_sandbox()?;
                to_json(&self.close(&handle_id).map(|()| Nothing {})?)
            }
            _ => Err(unknown_method(method)),
        }
    }
}

impl Watches {
    /// Carries out the method of [`Part::Watches`]. After [`Watch::Changed`] the client is to be told at once.
    ///
    /// # Errors
    /// As [`Files::call`].
    pub fn call(
        &mut self,
        connection: u64,
        method: &str,
        params: &RawValue,
    ) -> Result<(Box<RawValue>, WatchKey, Watch), FileError> {
        if method != method::FS_WATCH_MISSING {
            return Err(unknown_method(method));
        }
        let WatchMissingParams { watch_id, missing, present, sandbox, sandbox_policy } = from_json(params)?;
        decided(&sandbox, &sandbox_policy)?;
        let missing: Vec<AbsPath> = missing.into_iter().map(|path| path.0).collect();
        let key = WatchKey { connection, id: watch_id };
        let watch = self.watch(key, &missing, present.as_ref().map(|path| &path.0))?;
        Ok((to_json(&Watching { watching: true })?, key, watch))
    }
}

/// What the parameters of a handle's methods have besides: `None` unless somebody thinks that a handle could get another
/// sandbox than the one that it was opened with.
macro_rules! of_handle {
    ($(#[$meta:meta])* struct $name:ident<$life:lifetime> { $($(#[$field_meta:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct $name<$life> {
            #[serde(borrow)]
            handle_id: Cow<$life, str>,
            $($(#[$field_meta])* $field: $kind,)*
            #[serde(default)]
            sandbox: Option<IgnoredAny>,
            #[serde(default)]
            sandbox_policy: Option<IgnoredAny>,
        }

        impl $name<'_> {
            fn without_sandbox(self) -> Result<Self, FileError> {
                if self.sandbox.is_none() && self.sandbox_policy.is_none() {
                    return Ok(self);
                }
                let message = "a handle has the sandbox that it was opened with, and can't be given another";
                Err(FileError::new(ErrorKind::InvalidInput, None, message))
            }
        }
    };
}

of_handle! {
    /// `HandleParams`.
    struct OfHandle<'a> {}
}

of_handle! {
    /// `ReadBlockParams`.
    struct BlockPlace<'a> { offset: u64, len: u64, }
}

of_handle! {
    /// `WriteBlockParams` whose content is not decoded yet.
    struct BlockText<'a> { offset: u64, #[serde(borrow)] chunk: Cow<'a, str>, }
}

/// An object without members, the dialect's result of what succeeded.
#[derive(Serialize)]
struct Nothing {}

pub(crate) fn read_file_params(params: &RawValue) -> Result<(AbsPath, Links), FileError> {
    let ReadFileParams { path, follow_symlinks, sandbox, sandbox_policy } = from_json(params)?;
    decided(&sandbox, &sandbox_policy)?;
    Ok((path.0, links(follow_symlinks)))
}

pub(crate) fn write_file_params(params: &RawValue) -> Result<(AbsPath, WriteOptions, Vec<u8>), FileError> {
    let WriteFileParams {
        path,
        data_base64,
        follow_symlinks,
        expected_hash,
        mode,
        atomic,
        sandbox,
        sandbox_policy,
    } = from_json(params)?;
    decided(&sandbox, &sandbox_policy)?;
    let atomicity = match atomic {
        None => Atomicity::Preferred,
        Some(true) => Atomicity::Required,
        Some(false) => Atomicity::InPlace,
    };
    let expected = expected_hash.as_deref().map(Expected::parse).transpose()?;
    let options = WriteOptions { links: links(follow_symlinks), atomicity, expected, mode };
    Ok((path.0, options, decode(&data_base64)?))
}

pub(crate) fn path_params(params: &RawValue) -> Result<(AbsPath, Links), FileError> {
    let PathParams { path, follow_symlinks, sandbox, sandbox_policy } = from_json(params)?;
    decided(&sandbox, &sandbox_policy)?;
    Ok((path.0, links(follow_symlinks)))
}

fn links(follow: Option<bool>) -> Links {
    if follow.unwrap_or(true) { Links::Follow } else { Links::NoFollow }
}

/// Reads content of `fs/writeFile`.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, FileError> {
    base64::decode(text).map_err(|error| {
        let message = format!("fs/writeFile requires valid base64 dataBase64: {error}");
        FileError::new(ErrorKind::InvalidData, None, message)
    })
}

pub(crate) fn from_json<'a, T: Deserialize<'a>>(params: &'a RawValue) -> Result<T, FileError> {
    serde_json::from_str(params.get())
        .map_err(|error| FileError::new(ErrorKind::InvalidParams, None, error.to_string()))
}

pub(crate) fn to_json<T: Serialize>(result: &T) -> Result<Box<RawValue>, FileError> {
    serde_json::value::to_raw_value(result)
        .map_err(|error| FileError::new(ErrorKind::Io, None, error.to_string()))
}

/// Refuses what asks for a sandbox.
pub(crate) fn decided(
    sandbox: &Option<FileSystemSandbox>,
    policy: &Option<LegacyPolicy>,
) -> Result<(), FileError> {
    if sandbox.is_none() && policy.is_none() {
        return Ok(());
    }
    let message = "the sandbox of a request is decided before it comes here";
    Err(FileError::new(ErrorKind::InvalidInput, None, message))
}

pub(crate) fn unknown_method(method: &str) -> FileError {
    let message = format!("this exec server does not implement `{method}`");
    FileError::new(ErrorKind::UnknownMethod, None, message)
}
