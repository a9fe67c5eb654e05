//! Sources of archive bytes: a complete file from a client, of which any part can be copied, and a stream
//! that can be read once.
//!
//! The client owns the memory of its file, and may change it or take it away at any time. So nothing is read
//! in place: what is checked, hashed or written is always a copy of our own.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::fs::{File, by_path};

/// How many bytes are copied at once at most.
pub const PIECE: usize = 1024 * 1024;

/// A known number of bytes that can be copied from any offset.
pub trait Bytes: Send + Sync {
    /// How many bytes there are.
    fn size(&self) -> u64;

    /// Replaces the content of `into` by `length` bytes from `offset`. They must exist, and must be at most
    /// one [`PIECE`]. It is an error if the client took them away.
    fn copy(&self, offset: u64, length: usize, into: &mut Vec<u8>) -> Result<()>;
}

impl Bytes for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn copy(&self, offset: u64, length: usize, into: &mut Vec<u8>) -> Result<()> {
        let start = usize::try_from(offset).expect("it lies in memory");
        into.clear();
        into.extend_from_slice(&self[start..start + length]);
        Ok(())
    }
}

impl<B: Bytes + ?Sized> Bytes for &B {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn copy(&self, offset: u64, length: usize, into: &mut Vec<u8>) -> Result<()> {
        (**self).copy(offset, length, into)
    }
}

/// The bytes of an archive, in order.
pub trait Stream: Send {
    /// Appends the next bytes to `into`: at least one, at most `most` (which is not 0), and at most one
    /// [`PIECE`]. Returns how many; 0 at the end.
    fn next(&mut self, most: usize, into: &mut Vec<u8>) -> Result<usize>;
}

/// A whole file as a stream. Each byte is copied once.
#[derive(Debug)]
pub struct Whole<B> {
    bytes: B,
    at: u64,
    /// The buffer for a copy that is appended to other bytes.
    copied: Vec<u8>,
}

impl<B: Bytes> Whole<B> {
    /// Starts at the first byte.
    pub fn new(bytes: B) -> Self {
        Self { bytes, at: 0, copied: Vec::new() }
    }
}

impl<B: Bytes> Stream for Whole<B> {
    fn next(&mut self, most: usize, into: &mut Vec<u8>) -> Result<usize> {
        let rest = usize::try_from(self.bytes.size() - self.at).unwrap_or(PIECE);
        let length = rest.min(most).min(PIECE);
        if length == 0 {
            return Ok(0);
        }
        if into.is_empty() {
            self.bytes.copy(self.at, length, into)?;
        } else {
            self.bytes.copy(self.at, length, &mut self.copied)?;
            into.extend_from_slice(&self.copied);
        }
        self.at += length as u64;
        Ok(length)
    }
}

/// A file on this machine as a stream.
#[derive(Debug)]
pub struct FromFile {
    file: File,
    path: PathBuf,
}

impl FromFile {
    /// Opens the file and starts at its first byte.
    pub fn open(path: &Path) -> Result<Self> {
        let file = by_path::open(path)?;
        Ok(Self { file, path: path.to_path_buf() })
    }
}

impl Stream for FromFile {
    fn next(&mut self, most: usize, into: &mut Vec<u8>) -> Result<usize> {
        let most = most.min(PIECE) as u64;
        (&mut self.file).take(most).read_to_end(into).map_err(|error| Error::io("read", &self.path, error))
    }
}

/// Copies a range piece by piece, and passes each piece to `take`.
pub fn copy_in_pieces(
    bytes: &dyn Bytes,
    offset: u64,
    size: u64,
    piece: &mut Vec<u8>,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let end = offset + size;
    let mut at = offset;
    while at < end {
        let length = usize::try_from(end - at).map_or(PIECE, |rest| rest.min(PIECE));
        bytes.copy(at, length, piece)?;
        take(piece)?;
        at += length as u64;
    }
    Ok(())
}

/// Copies the first bytes, at most `most` of them.
pub fn copy_of(bytes: &dyn Bytes, most: usize) -> Result<Vec<u8>> {
    let size = bytes.size().min(most as u64);
    let (mut whole, mut piece) = (Vec::new(), Vec::new());
    copy_in_pieces(bytes, 0, size, &mut piece, |piece| {
        whole.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_gives_everything_once_and_no_more_than_asked_for() {
        let bytes: Vec<u8> = (0..2 * PIECE + 7).map(|at| at.to_le_bytes()[0]).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        for most in [PIECE - 1, PIECE, 3 * PIECE] {
            let streams: [Box<dyn Stream>; 2] =
                [Box::new(Whole::new(bytes.clone())), Box::new(FromFile::open(file.path()).unwrap())];
            for mut stream in streams {
                let mut all = b"before".to_vec();
                loop {
                    let length = all.len();
                    let given = stream.next(most, &mut all).unwrap();
                    assert_eq!(all.len(), length + given);
                    assert!(given <= most.min(PIECE));
                    if given == 0 {
                        break;
                    }
                }
                assert!(all.strip_prefix(b"before") == Some(&bytes[..]));
            }
        }
    }

    #[test]
    fn what_comes_first_is_copied_as_far_as_there_is_any() {
        let bytes: Vec<u8> = (0..PIECE + 3).map(|at| at.to_le_bytes()[0]).collect();
        for most in [0, 1, PIECE, PIECE + 1, PIECE + 3, PIECE + 4] {
            assert!(copy_of(&bytes, most).unwrap() == bytes[..most.min(bytes.len())], "{most}");
        }
    }
}
