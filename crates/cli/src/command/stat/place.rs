//! Where stacks export their counters if nobody says otherwise: a directory of this user's, with a socket
//! named after each process.

use std::{
    io,
    os::unix::{
        fs::{DirBuilderExt as _, MetadataExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::Uid;

/// The socket of this process, in a directory that only this user can enter.
pub fn own() -> Result<PathBuf> {
    let directory = directory();
    let mut builder = std::fs::DirBuilder::new();
    match builder.mode(0o700).create(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("making {}", directory.display()));
        }
        _ => {}
    }
    check(&directory)?;
    // Those of processes that were killed would lie there for ever.
    for path in sockets(&directory)?.into_iter().filter(|path| !is_alive(path)) {
        let _ = std::fs::remove_file(path);
    }
    Ok(directory.join(format!("{}.sock", std::process::id())))
}

/// Where to read: a path as it is, the socket of a process by its number, or the only one there is.
pub fn find(stack: Option<&str>) -> Result<PathBuf> {
    match stack {
        Some(text) if text.parse::<u32>().is_ok() => Ok(directory().join(format!("{text}.sock"))),
        Some(path) => Ok(path.into()),
        None => only(&directory()),
    }
}

fn directory() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) if !directory.is_empty() => Path::new(&directory).join("peyk"),
        _ => std::env::temp_dir().join(format!("peyk-{}", Uid::effective())),
    }
}

/// Nobody else may have made it, or put something into it.
fn check(directory: &Path) -> Result<()> {
    let found = std::fs::symlink_metadata(directory)
        .with_context(|| format!("looking at {}", directory.display()))?;
    ensure!(
        found.is_dir() && found.uid() == Uid::effective().as_raw() && found.mode() & 0o022 == 0,
        "{} is not a directory that only this user can write to",
        directory.display()
    );
    Ok(())
}

/// The sockets in a directory; none if it is not there.
fn sockets(directory: &Path) -> Result<Vec<PathBuf>> {
    let is_socket = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "sock");
    match std::fs::read_dir(directory) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).filter(is_socket).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("looking into {}", directory.display())),
    }
}

/// Whether somebody answers at a socket: one that was killed leaves its own behind.
fn is_alive(path: &PathBuf) -> bool {
    UnixStream::connect(path).is_ok()
}

fn only(directory: &Path) -> Result<PathBuf> {
    let mut alive = sockets(directory)?;
    if !alive.is_empty() {
        check(directory)?;
    }
    alive.retain(is_alive);
    alive.sort();
    match &alive[..] {
        [] => bail!("no stack of this user exports its counters; `peyk serve` does"),
        [path] => Ok(path.clone()),
        several => {
            let names: Vec<_> =
                several.iter().filter_map(|path| path.file_stem()?.to_str().map(str::to_owned)).collect();
            bail!("several stacks are running, say which: peyk stat {}", names.join(" | "))
        }
    }
}
