//! A complete file of a client's, from which any part can be copied.
//!
//! The memory that it stands in is the client's, who may change it or take it away at any time. So nothing is ever
//! looked at in place: what is checked, hashed or written is a copy of our own.

use crate::error::Result;

/// How much is copied at once at most.
pub const PIECE: usize = 1024 * 1024;

/// Bytes of known number that can be copied from any place.
pub trait Bytes: Send + Sync {
    /// How many there are.
    fn size(&self) -> u64;

    /// Copies `length` bytes from `offset` on into `into`, in place of what it held. These must be there, and no more
    /// than a [`PIECE`]. An error says that the client took them away.
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

/// Copies a range piece by piece: each is handed to `take`.
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

/// Copies what comes first, and no more than `most` bytes of it.
pub fn copy_of(bytes: &dyn Bytes, most: usize) -> Result<Vec<u8>> {
    let size = bytes.size().min(most as u64);
    let (mut whole, mut piece) = (Vec::new(), Vec::new());
    copy_in_pieces(bytes, 0, size, &mut piece, |piece| {
        whole.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(whole)
}
