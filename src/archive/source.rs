//! Sources of archive bytes: a complete file from a client, of which any part can be copied, and a stream
//! that can be read once.
//!
//! The client owns the memory of its file, and may change it or take it away at any time. So nothing is read
//! in place: what is checked, hashed or written is always a copy of our own.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fs::{File, by_path};

/// How many bytes are copied at once at most.
pub const PIECE: usize = 1024 * 1024;

/// A known number of bytes that can be copied from any offset.
pub trait Bytes: Send + Sync {
    /// How many bytes there are.
    fn size(&self) -> u64;

    /// Appends `length` bytes from `offset` to `into`. They must exist, and must be at most one [`PIECE`]. It is an
    /// error if the client took them away.
    fn copy(&self, offset: u64, length: usize, into: &mut Vec<u8>) -> Result<()>;
}

impl Bytes for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn copy(&self, offset: u64, length: usize, into: &mut Vec<u8>) -> Result<()> {
        let start = usize::try_from(offset).expect("it lies in memory");
        into.extend_from_slice(&self[start..start + length]);
        Ok(())
    }
}

/// The bytes of an archive, in order.
pub trait Stream: Send {
    /// Appends the next bytes to `into`: at least one, at most `most` (which is not 0), and at most one
    /// [`PIECE`]. Returns how many; 0 at the end.
    fn next(&mut self, most: usize, into: &mut Vec<u8>) -> Result<usize>;

    /// Splits off the next `size` bytes as a stream of their own; this one goes on behind them. `None` if they are not
    /// all there yet; then nothing was split off.
    fn split_off(&mut self, _size: u64) -> Option<Box<dyn Stream>> {
        None
    }

    /// Another stream of all bytes that this one still has. `None` if they can be read only once.
    fn again(&self) -> Option<Box<dyn Stream>> {
        None
    }
}

/// A whole file, or a range of one, as a stream. Each byte is copied once.
#[derive(Debug)]
pub struct Whole<B> {
    bytes: Arc<B>,
    at: u64,
    end: u64,
}

impl<B: Bytes> Whole<B> {
    /// All bytes of a file.
    pub fn new(bytes: B) -> Self {
        let size = bytes.size();
        Self::first(bytes, size)
    }

    /// The first bytes of a file, which must have as many.
    pub fn first(bytes: B, length: u64) -> Self {
        Self { bytes: Arc::new(bytes), at: 0, end: length }
    }

    /// How many bytes are still to be read.
    #[must_use]
    pub fn rest(&self) -> u64 {
        self.end - self.at
    }
}

impl<B: Bytes + 'static> Stream for Whole<B> {
    fn split_off(&mut self, size: u64) -> Option<Box<dyn Stream>> {
        if size > self.rest() {
            return None;
        }
        let (bytes, at) = (self.bytes.clone(), self.at);
        self.at += size;
        Some(Box::new(Self { bytes, at, end: self.at }))
    }

    fn again(&self) -> Option<Box<dyn Stream>> {
        Some(Box::new(Self { bytes: self.bytes.clone(), ..*self }))
    }

    fn next(&mut self, most: usize, into: &mut Vec<u8>) -> Result<usize> {
        let rest = usize::try_from(self.rest()).unwrap_or(PIECE);
        let length = rest.min(most).min(PIECE);
        if length == 0 {
            return Ok(0);
        }
        self.bytes.copy(self.at, length, into)?;
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
        piece.clear();
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
    fn what_is_split_off_and_what_follows_are_read_independently() {
        let bytes: Vec<u8> = (0..2 * PIECE + 7).map(|at| at.to_le_bytes()[0]).collect();
        let all = |stream: &mut dyn Stream| {
            let mut all = Vec::new();
            while stream.next(PIECE, &mut all).unwrap() > 0 {}
            all
        };
        let length = bytes.len() - 5;
        let mut stream = Whole::first(bytes.clone(), length as u64);
        let mut first = Vec::new();
        assert_eq!(stream.next(10, &mut first).unwrap(), 10);
        assert!(stream.split_off(length as u64 - 9).is_none(), "more than there is");
        let mut split = stream.split_off(PIECE as u64 + 3).unwrap();
        let mut empty = stream.split_off(0).unwrap();
        let end = PIECE + 13;
        assert!(
            all(&mut *stream.again().unwrap()) == bytes[end..length],
            "it reads nothing of the first one"
        );
        assert!(all(&mut *split.again().unwrap()) == bytes[10..end]);
        assert!(all(&mut stream) == bytes[end..length]);
        assert!(all(&mut *split) == bytes[10..end]);
        assert!(all(&mut *empty).is_empty() && stream.split_off(1).is_none());
    }

    #[test]
    fn what_comes_first_is_copied_as_far_as_there_is_any() {
        let bytes: Vec<u8> = (0..PIECE + 3).map(|at| at.to_le_bytes()[0]).collect();
        for most in [0, 1, PIECE, PIECE + 1, PIECE + 3, PIECE + 4] {
            assert!(copy_of(&bytes, most).unwrap() == bytes[..most.min(bytes.len())], "{most}");
        }
    }
}
