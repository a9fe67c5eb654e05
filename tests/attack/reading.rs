//! Reads archives without a restore.

use std::collections::BTreeMap;

use sandbox_managed_runtime::archive::source::{PIECE, Stream, Whole};
use sandbox_managed_runtime::archive::unpack::{self, Archive, Sink, StreamedFile};
use sandbox_managed_runtime::error::Error;
use sandbox_managed_runtime::path::RelativePath;
use sandbox_managed_runtime::tree::filter::Filter;

/// The contents of files by the offsets of their headers, and the content of the control file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The content of each file.
    pub files: BTreeMap<u64, Vec<u8>>,
    /// The content of the control file, as the reader passed it on.
    pub controls: Vec<Vec<u8>>,
}

impl Sink for Contents {
    fn buffer(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn files(&mut self, bytes: Vec<u8>, files: Vec<StreamedFile>) -> Result<(), Error> {
        assert!(bytes.len() <= PIECE && !files.is_empty());
        for file in files {
            assert_eq!(file.range.len() as u64, file.size);
            assert!(file.size <= PIECE as u64);
            let content = bytes[file.range.clone()].to_vec();
            assert!(self.files.insert(file.inode, content).is_none(), "{file:?} passed twice");
        }
        Ok(())
    }

    fn part(&mut self, file: &StreamedFile, bytes: Vec<u8>) -> Result<(), Error> {
        assert!(file.size > PIECE as u64 && !bytes.is_empty() && bytes.len() <= PIECE);
        let content = self.files.entry(file.inode).or_default();
        content.extend_from_slice(&bytes);
        assert!(content.len() as u64 <= file.size);
        Ok(())
    }

    fn control(&mut self, content: &[u8]) {
        self.controls.push(content.to_vec());
    }
}

/// Reads a stream, with the contents of its files.
pub fn read_stream(
    stream: &mut dyn Stream,
    control: Option<&RelativePath>,
    ignore: &Filter<'_>,
) -> Result<(Archive, Contents), Error> {
    let mut contents = Contents::default();
    let archive = unpack::unpack(stream, control, ignore, &mut contents)?;
    Ok((archive, contents))
}

/// Reads a whole archive.
pub fn unpack(archive: &[u8], control: Option<&RelativePath>, ignore: &Filter<'_>) -> Result<Archive, Error> {
    read_stream(&mut Whole::new(archive.to_vec()), control, ignore).map(|(archive, _)| archive)
}

/// A stream in chunks of the sizes that `length` returns, given the largest size allowed.
pub struct Dripping<'a, F> {
    /// What is still to be read.
    pub rest: &'a [u8],
    /// The size of the next chunk.
    pub length: F,
}

impl<F: FnMut(usize) -> usize + Send> Stream for Dripping<'_, F> {
    fn next(&mut self, most: usize, into: &mut Vec<u8>) -> Result<usize, Error> {
        assert!((1..=PIECE).contains(&most));
        let most = most.min(self.rest.len());
        if most == 0 {
            return Ok(0);
        }
        let (given, rest) = self.rest.split_at((self.length)(most).clamp(1, most));
        into.extend_from_slice(given);
        self.rest = rest;
        Ok(given.len())
    }
}
