//! Files for tasks.

use std::io;
use std::path::Path;

use crate::buf::{Data, IoBuf};
use crate::event::What;
use crate::local::{Local, refused, unexpected};
use crate::op::file::{Fsync, OpenAt, OpenOptions, ReadAt, WriteAt};
use crate::source::Source;

/// A file, read and written at offsets.
#[derive(Debug, Clone)]
pub struct File {
    local: Local,
    source: Source,
}

impl File {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// Those of the system.
    pub async fn open(local: &Local, path: impl AsRef<Path>) -> io::Result<File> {
        File::open_with(local, path, OpenOptions::default()).await
    }

    /// Opens a file.
    ///
    /// # Errors
    /// Those of the system.
    pub async fn open_with(local: &Local, path: impl AsRef<Path>, options: OpenOptions) -> io::Result<File> {
        let op = OpenAt { path: path.as_ref().to_owned(), options };
        match local.submit(op).map_err(refused)?.await {
            What::Opened(source) => Ok(File { local: local.clone(), source }),
            other => Err(unexpected(other)),
        }
    }

    /// The source, for operations of one's own.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Length in bytes.
    ///
    /// # Errors
    /// Those of the system.
    pub fn file_len(&self) -> io::Result<u64> {
        self.source.file_len()
    }

    /// Reads until the buffer is full or the file ends; returns the buffer and how much of it was
    /// read.
    ///
    /// # Errors
    /// Those of the system.
    pub async fn read_at(&self, buf: impl Into<IoBuf>, offset: u64) -> io::Result<(IoBuf, usize)> {
        let op = ReadAt { source: self.source.clone(), buf: buf.into(), offset };
        match self.local.submit(op).map_err(refused)?.await {
            What::Read { bytes, buf } => Ok((buf, bytes)),
            other => Err(unexpected(other)),
        }
    }

    /// Writes all of `data`, which comes back. Dropping the future does not call the write off.
    ///
    /// # Errors
    /// Those of the system.
    pub async fn write_at(&self, data: impl Into<Data>, offset: u64) -> io::Result<Data> {
        let op = WriteAt { source: self.source.clone(), data: data.into(), offset };
        let mut write = self.local.submit(op).map_err(refused)?;
        write.keep = true;
        match write.await {
            What::Wrote { data, .. } => Ok(data),
            other => Err(unexpected(other)),
        }
    }

    /// Waits until what was written is on the device.
    ///
    /// # Errors
    /// Those of the system.
    pub async fn sync(&self) -> io::Result<()> {
        let op = Fsync { source: self.source.clone(), data_only: false };
        match self.local.submit(op).map_err(refused)?.await {
            What::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }
}
