//! Compresses and decompresses the bytes of an archive.
//!
//! Bytes are compressed in blocks, on all of rayon's threads: into one gzip member, which every sandbox can read, or
//! into zstd frames, one after another. What is decompressed was made by a program in the sandbox and is untrusted: it
//! must have exactly the expected length, and zstd is decoded in Rust.

use std::io::{self, BufRead, Read};
use std::sync::{Arc, Mutex};

use flate2::bufread::GzDecoder;
use flate2::{Compress, Compression, Crc, FlushCompress};
use rayon::prelude::*;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use zstd_safe::{CCtx, CParameter};

use super::source::{Bytes, PIECE, Stream, Whole};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::sync::lock;

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// They are not.
    #[default]
    None,
    /// As one gzip member.
    Gzip,
    /// As zstd frames.
    Zstd,
}

impl Codec {
    /// Its name, which is also that of its program.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The first letter of its name.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::None => 'n',
            Self::Gzip => 'g',
            Self::Zstd => 'z',
        }
    }

    /// What is used instead where a sandbox cannot decompress it.
    #[must_use]
    pub fn instead(self) -> Self {
        match self {
            Self::Zstd => Self::Gzip,
            Self::Gzip | Self::None => Self::None,
        }
    }

    /// The codec with that letter.
    #[must_use]
    pub fn of(letter: char) -> Option<Self> {
        [Self::None, Self::Gzip, Self::Zstd].into_iter().find(|codec| codec.letter() == letter)
    }
}

/// How many bytes one thread compresses with gzip at a time.
const BLOCK: usize = 1024 * 1024;

/// How many bytes a zstd frame has before they are compressed, in blocks: all threads have one, and a frame finds nothing of
/// another. Frames of 16 MiB make `node_modules` smaller by a twelfth than those of 4 MiB.
const FRAME_MIN: usize = 2 * BLOCK;
const FRAME_MAX: usize = 16 * BLOCK;

/// The window of a zstd frame, as the exponent of a size: the 8 MiB that any decoder must be able to use.
const WINDOW_LOG: u32 = 23;

/// How many samples of a block are tried, and the size of each. A block is compressed if any of its samples
/// shrinks.
const SAMPLES: usize = 4;
const SAMPLE: usize = 16 * 1024;

/// How much work compression is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// As little as pays.
    Quick,
    /// About twice that, which makes source code smaller: by another seventh with gzip, a twelfth with zstd.
    Thorough,
}

impl Effort {
    /// Level 1 of zlib-rs uses fixed codes; level 2 makes codes for the content, which makes text smaller by a
    /// seventh. Beyond level 6 hardly anything is saved.
    fn level(self) -> Compression {
        match self {
            Self::Quick => Compression::new(2),
            Self::Thorough => Compression::new(6),
        }
    }

    /// Level 3 of zstd is faster than gzip's level 2, and makes less than gzip's level 6. Beyond level 6 of zstd it takes longer
    /// than it saves, unless the link is very slow.
    fn zstd_level(self) -> i32 {
        match self {
            Self::Quick => 3,
            Self::Thorough => 6,
        }
    }
}

/// A gzip header without a name or time.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// The last block of deflate data, empty.
const LAST: [u8; 2] = [3, 0];

/// Compresses, if that saves a twentieth at least.
///
/// Blocks are compressed a few at a time, so that not much more memory is needed than the result has.
pub fn compress(bytes: &[u8], codec: Codec, effort: Effort, cancel: &Cancel) -> Result<Option<Vec<u8>>> {
    let shrinking = bytes.par_chunks(BLOCK).map(|block| cancel.check().map(|()| shrinks(block)));
    let shrinking = shrinking.collect::<Result<Vec<_>>>()?;
    if !shrinking.contains(&true) {
        return Ok(None);
    }
    match codec {
        Codec::None => Ok(None),
        Codec::Gzip => gzip_member(bytes, &shrinking, effort, cancel),
        Codec::Zstd => zstd_frames(bytes, &shrinking, effort, cancel),
    }
}

/// Whether a block gets smaller, as far as samples tell.
fn shrinks(block: &[u8]) -> bool {
    let samples = block.chunks(block.len().div_ceil(SAMPLES).max(1));
    let mut samples = samples.map(|part| &part[..part.len().min(SAMPLE)]);
    samples.any(|sample| deflated(sample, Effort::Quick.level()).len() * 20 < sample.len() * 19)
}

/// How many bytes the compressed form of so many has at most: a twentieth less.
fn most_of(bytes: usize) -> usize {
    bytes / 20 * 19
}

/// Compresses into one gzip member, if that pays. A block that does not shrink is stored.
fn gzip_member(bytes: &[u8], shrinking: &[bool], effort: Effort, cancel: &Cancel) -> Result<Option<Vec<u8>>> {
    let most = most_of(bytes.len());
    // Only what is written to takes memory. One size for all parts is what an allocator reuses best.
    let mut member = Vec::with_capacity(most);
    member.extend(HEADER);
    let mut whole = Crc::new();
    let at_once = 2 * rayon::current_num_threads();
    for (group, shrinking) in bytes.chunks(BLOCK * at_once).zip(shrinking.chunks(at_once)) {
        let deflate = |(block, &shrinks)| {
            cancel.check()?;
            let level = if shrinks { effort.level() } else { Compression::none() };
            let mut crc = Crc::new();
            crc.update(block);
            Ok((deflated(block, level), crc))
        };
        let blocks = group.par_chunks(BLOCK).zip(shrinking).map(deflate).collect::<Result<Vec<_>>>()?;
        for (block, crc) in &blocks {
            if member.len() + block.len() + LAST.len() + 8 > most {
                return Ok(None);
            }
            member.extend(block);
            whole.combine(crc);
        }
    }
    member.extend(LAST);
    member.extend(whole.sum().to_le_bytes());
    member.extend(whole.amount().to_le_bytes());
    Ok(Some(member))
}

/// Compresses into zstd frames, if that pays. One in which nothing shrinks takes hardly any time.
fn zstd_frames(bytes: &[u8], shrinking: &[bool], effort: Effort, cancel: &Cancel) -> Result<Option<Vec<u8>>> {
    let most = most_of(bytes.len());
    let threads = rayon::current_num_threads();
    let size = bytes.len().div_ceil(threads).next_multiple_of(BLOCK).clamp(FRAME_MIN, FRAME_MAX);
    let blocks = size / BLOCK;
    let mut frames = Vec::with_capacity(most);
    for (group, shrinking) in bytes.chunks(size * threads).zip(shrinking.chunks(blocks * threads)) {
        let press = |(bytes, shrinking): (&[u8], &[bool])| {
            cancel.check()?;
            zstd_frame(bytes, shrinking.contains(&true).then_some(effort))
        };
        let pressed = group.par_chunks(size).zip(shrinking.par_chunks(blocks)).map(press);
        for frame in pressed.collect::<Result<Vec<_>>>()? {
            if frames.len() + frame.len() > most {
                return Ok(None);
            }
            frames.extend(frame);
        }
    }
    Ok(Some(frames))
}

/// Compresses into one frame with a checksum; without any effort where it is not expected to get smaller.
fn zstd_frame(bytes: &[u8], effort: Option<Effort>) -> Result<Vec<u8>> {
    let failed = |code| Error::Internal(format!("zstd: {}", zstd_safe::get_error_name(code)));
    let mut state =
        CCtx::try_create().ok_or_else(|| Error::Internal("there is no memory for zstd".to_owned()))?;
    let mut set = |parameter| state.set_parameter(parameter).map(drop).map_err(failed);
    set(CParameter::ChecksumFlag(true))?;
    set(CParameter::CompressionLevel(effort.map_or(1, Effort::zstd_level)))?;
    if effort.is_some() {
        set(CParameter::WindowLog(WINDOW_LOG))?;
        // Without it, only few of the matches are found that are megabytes back.
        set(CParameter::EnableLongDistanceMatching(true))?;
    }
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(bytes.len()));
    state.compress2(&mut frame, bytes).map_err(failed)?;
    Ok(frame)
}

/// Compresses one block by itself, and leaves the data open, so that other blocks can follow.
fn deflated(block: &[u8], level: Compression) -> Vec<u8> {
    let mut state = Compress::new(level, false);
    // Stored blocks add at most five bytes for each 64 KiB, and the flush adds five more.
    let mut out = Vec::with_capacity(block.len() + block.len() / 4096 + 64);
    loop {
        let read = usize::try_from(state.total_in()).expect("it lies in memory");
        let before = state.total_out();
        state
            .compress_vec(&block[read..], &mut out, FlushCompress::Sync)
            .expect("a fresh state takes any bytes");
        let done = usize::try_from(state.total_in()).expect("it lies in memory") == block.len();
        if done && out.len() < out.capacity() {
            return out;
        }
        if state.total_out() == before || out.len() == out.capacity() {
            out.reserve(SAMPLE);
        }
    }
}

/// Decodes one part of an archive, as a stream. The part must have exactly the expected size.
pub struct Decoder<B: Bytes> {
    from: From<B>,
    codec: Codec,
    /// The offset of the next byte in the whole archive, for messages.
    at: u64,
    /// How many bytes are still missing.
    due: u64,
    /// The expected size.
    size: u64,
    failed: Arc<Mutex<Option<Error>>>,
    ended: bool,
}

enum From<B: Bytes> {
    None(Whole<B>),
    Gzip(Box<GzDecoder<Compressed<B>>>),
    Zstd(Box<StreamingDecoder<Compressed<B>, FrameDecoder>>),
}

impl<B: Bytes + 'static> Decoder<B> {
    /// Decodes the first `length` bytes of a file. They must contain exactly `size` bytes, which are at
    /// offset `at` of the whole archive.
    pub fn new(codec: Codec, bytes: B, length: u64, at: u64, size: u64) -> Result<Self> {
        let failed = Arc::default();
        let compressed = |bytes| {
            let failed = Arc::clone(&failed);
            Compressed { bytes, at: 0, end: length, piece: Vec::new(), read: 0, failed }
        };
        let from = match codec {
            Codec::None => From::None(Whole::first(bytes, length)),
            Codec::Gzip => From::Gzip(Box::new(GzDecoder::new(compressed(bytes)))),
            Codec::Zstd => match StreamingDecoder::new_with_decoder(compressed(bytes), bounded_decoder()) {
                Ok(decoder) => From::Zstd(Box::new(decoder)),
                Err(error) => {
                    let failed = lock(&failed).take();
                    return Err(failed.unwrap_or_else(|| damaged(at, codec, &error.to_string())));
                }
            },
        };
        Ok(Self { from, codec, at, due: size, size, failed, ended: false })
    }

    /// Appends the next bytes.
    fn read(&mut self, most: usize, into: &mut Vec<u8>) -> Result<usize> {
        let decoder: &mut dyn Read = match &mut self.from {
            From::None(bytes) => return bytes.next(most, into),
            From::Gzip(decoder) => decoder,
            From::Zstd(decoder) => decoder,
        };
        let start = into.len();
        into.resize(start + most, 0);
        let read = loop {
            match decoder.read(&mut into[start..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        into.truncate(start + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => lock(&self.failed).take().map_or(Ok(0), Err),
            Ok(read) => Ok(read),
            Err(error) => Err(self.failure(&error)),
        }
    }

    /// Checks that nothing follows the last byte.
    fn end(&mut self) -> Result<()> {
        if self.read(1, &mut Vec::new())? > 0 {
            return Err(Error::ArchiveInvalid {
                offset: self.at,
                entry: None,
                reason: format!("a part of it is longer than the {} bytes that it should have", self.size),
            });
        }
        let rest = match &mut self.from {
            From::None(_) => return Ok(()),
            From::Gzip(decoder) => decoder.get_mut(),
            From::Zstd(decoder) => {
                let told = decoder.decoder.get_checksum_from_data();
                if told.is_none() || told != decoder.decoder.get_calculated_checksum() {
                    return Err(damaged(self.at, self.codec, "its checksum is wrong or missing"));
                }
                decoder.get_mut()
            }
        };
        if rest.fill_buf().is_ok_and(|rest| !rest.is_empty()) {
            return Err(damaged(self.at, self.codec, "something follows its end"));
        }
        lock(&self.failed).take().map_or(Ok(()), Err)
    }

    fn failure(&self, error: &io::Error) -> Error {
        if let Some(failed) = lock(&self.failed).take() {
            return failed;
        }
        if error.kind() == io::ErrorKind::UnexpectedEof {
            let reason = "the end of a compressed part is missing".to_owned();
            return Error::ArchiveTruncated { offset: self.at, reason };
        }
        damaged(self.at, self.codec, &error.to_string())
    }
}

impl<B: Bytes + 'static> Stream for Decoder<B> {
    fn split_off(&mut self, size: u64) -> Option<Box<dyn Stream>> {
        let From::None(bytes) = &mut self.from else { return None };
        let split = (size <= self.due).then(|| bytes.split_off(size))??;
        self.at += size;
        self.due -= size;
        Some(split)
    }

    fn next(&mut self, most: usize, into: &mut Vec<u8>) -> Result<usize> {
        let most = most.min(PIECE).min(usize::try_from(self.due).unwrap_or(PIECE));
        if most == 0 {
            if !self.ended {
                self.end()?;
                self.ended = true;
            }
            return Ok(0);
        }
        let read = self.read(most, into)?;
        if read == 0 {
            let got = self.size - self.due;
            return Err(Error::ArchiveTruncated {
                offset: self.at,
                reason: format!("a part of it has {got} of the {} bytes that it should have", self.size),
            });
        }
        self.at += read as u64;
        self.due -= read as u64;
        Ok(read)
    }
}

/// The largest window of a zstd frame that is accepted. The sandbox compresses at zstd's first level, which
/// needs half a megabyte.
const WINDOW_MAX: u64 = 8 * 1024 * 1024;

fn bounded_decoder() -> FrameDecoder {
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(WINDOW_MAX);
    decoder
}

fn damaged(at: u64, codec: Codec, reason: &str) -> Error {
    let reason = format!("a part of it is not complete {} data ({reason})", codec.name());
    Error::ArchiveInvalid { offset: at, entry: None, reason }
}

/// The compressed bytes for a decoder. If they cannot be copied, it gets none, and the error is kept.
struct Compressed<B> {
    bytes: B,
    at: u64,
    end: u64,
    piece: Vec<u8>,
    read: usize,
    failed: Arc<Mutex<Option<Error>>>,
}

impl<B: Bytes> BufRead for Compressed<B> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.read == self.piece.len() && self.at < self.end {
            let length = usize::try_from(self.end - self.at).map_or(PIECE, |rest| rest.min(PIECE));
            self.read = 0;
            self.piece.clear();
            if let Err(error) = self.bytes.copy(self.at, length, &mut self.piece) {
                *lock(&self.failed) = Some(error);
                self.piece.clear();
                self.at = self.end;
            } else {
                self.at += length as u64;
            }
        }
        Ok(&self.piece[self.read..])
    }

    fn consume(&mut self, amount: usize) {
        self.read += amount;
    }
}

impl<B: Bytes> Read for Compressed<B> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    fn noise(length: usize, mut state: u64) -> Vec<u8> {
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u8::try_from(state >> 56).unwrap()
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    fn text(length: usize) -> Vec<u8> {
        (0_u32..).flat_map(|line| format!("line {line} of a text\n").into_bytes()).take(length).collect()
    }

    fn through(program: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new(program[0])
            .args(&program[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
        let writing = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        writing.join().unwrap().unwrap();
        assert!(output.status.success(), "{program:?}");
        output.stdout
    }

    fn pressed(bytes: &[u8], codec: Codec, effort: Effort) -> Vec<u8> {
        compress(bytes, codec, effort, &Cancel::default()).unwrap().expect("it shrinks")
    }

    fn decoded(codec: Codec, bytes: &[u8], size: u64) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut decoder = Decoder::new(codec, bytes.to_vec(), bytes.len() as u64, 0, size)?;
        let mut sizes = [1, 70_000, 1 << 20].into_iter().cycle();
        while decoder.next(sizes.next().unwrap(), &mut out)? > 0 {}
        Ok(out)
    }

    #[test]
    fn every_gunzip_reads_compressed_bytes() {
        let mixed = [text(3_000_000), noise(2_500_000, 1), text(100)].concat();
        for bytes in [text(1000), text(BLOCK), text(BLOCK + 1), mixed, vec![0; 5_000_000]] {
            for effort in [Effort::Quick, Effort::Thorough] {
                let member = pressed(&bytes, Codec::Gzip, effort);
                for program in
                    [&["gzip", "-dc"][..], &["busybox", "gunzip", "-c"], &["toybox", "gunzip", "-c"]]
                {
                    assert!(through(program, &member) == bytes, "{program:?} {}", bytes.len());
                }
                assert!(decoded(Codec::Gzip, &member, bytes.len() as u64).unwrap() == bytes);
            }
        }
    }

    /// Frames of all sizes, some of them with what does not shrink.
    #[test]
    fn zstd_reads_compressed_bytes() {
        let mixed = [text(3_000_000), noise(2_500_000, 1), text(100)].concat();
        let large = [noise(FRAME_MAX, 5), text(FRAME_MAX), noise(BLOCK, 6), text(FRAME_MAX + 1)].concat();
        for bytes in [text(1000), text(FRAME_MIN), text(FRAME_MIN + 1), mixed, vec![0; 5_000_000], large] {
            for effort in [Effort::Quick, Effort::Thorough] {
                let frames = pressed(&bytes, Codec::Zstd, effort);
                // No decoder needs to allow for a larger window.
                let read = through(&["zstd", "-dcq", "--memory=8MiB"], &frames);
                assert!(read == bytes, "{}", bytes.len());
                for program in [&["zstd", "-dc"][..], &["zstdcat"]] {
                    assert!(through(program, &frames) == bytes, "{program:?} {}", bytes.len());
                }
            }
        }
    }

    /// How many frames there are depends on the threads; a change in any of them is noticed.
    #[test]
    fn zstd_refuses_damaged_bytes() {
        let frames = pressed(&text(3 * FRAME_MIN), Codec::Zstd, Effort::Quick);
        let is_refused = |bytes: &[u8]| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), bytes).unwrap();
            let output = Command::new("zstd").args(["-dcq"]).stdin(file.reopen().unwrap()).output().unwrap();
            !output.status.success()
        };
        assert!(!is_refused(&frames));
        assert!(is_refused(&frames[..frames.len() - 1]), "cut");
        for at in [frames.len() - 1, frames.len() / 2, frames.len() / 3] {
            let mut damaged = frames.clone();
            damaged[at] ^= 1;
            assert!(is_refused(&damaged), "byte {at}");
        }
    }

    #[test]
    fn what_repeats_within_the_window_is_found() {
        let once = noise(5_000_000, 8);
        let twice = [&once[..], &once[..]].concat();
        let some_text = text(200_000);
        let frame = zstd_frame(&[&twice[..], &some_text[..]].concat(), Some(Effort::Quick)).unwrap();
        assert!(frame.len() < once.len() + 200_000, "{}", frame.len());
    }

    #[test]
    fn compressing_stops_when_it_is_to() {
        let cancel = Cancel::default();
        cancel.cancel();
        for codec in [Codec::Gzip, Codec::Zstd] {
            let stopped = compress(&text(1_000_000), codec, Effort::Quick, &cancel);
            assert!(matches!(stopped, Err(Error::Aborted)), "{codec:?}");
        }
    }

    #[test]
    fn more_effort_makes_less_of_text() {
        let text = include_bytes!("codec.rs");
        for (codec, text) in [(Codec::Gzip, text.repeat(20)), (Codec::Zstd, text.to_vec())] {
            let [quick, thorough] =
                [Effort::Quick, Effort::Thorough].map(|effort| pressed(&text, codec, effort).len());
            assert!(thorough * 50 < quick * 49, "{codec:?}: {thorough} {quick}");
        }
    }

    #[test]
    fn bytes_that_do_not_shrink_are_not_compressed() {
        let with_some_text = [noise(1_900_000, 3), text(10_000)].concat();
        for bytes in [noise(3_000_000, 2), Vec::new(), with_some_text] {
            for codec in [Codec::None, Codec::Gzip, Codec::Zstd] {
                let pressed = compress(&bytes, codec, Effort::Quick, &Cancel::default()).unwrap();
                assert_eq!(pressed, None, "{codec:?}: {} bytes", bytes.len());
            }
        }
        let text = text(1_000_000);
        assert_eq!(compress(&text, Codec::None, Effort::Quick, &Cancel::default()).unwrap(), None);
    }

    #[test]
    fn bytes_that_programs_compressed_are_decoded() {
        for bytes in [text(1), text(3_000_000), noise(100_000, 4)] {
            for (codec, program) in [
                (Codec::Gzip, &["gzip", "-1c"][..]),
                (Codec::Gzip, &["busybox", "gzip", "-1"]),
                (Codec::Zstd, &["zstd", "-q", "-1", "-c"]),
                (Codec::None, &["cat"]),
            ] {
                let compressed = through(program, &bytes);
                assert!(decoded(codec, &compressed, bytes.len() as u64).unwrap() == bytes, "{program:?}");
            }
        }
    }

    #[test]
    fn only_what_a_part_should_have_is_split_off() {
        let bytes = text(100_000);
        let mut plain = Decoder::new(Codec::None, bytes.clone(), 100_000, 500, 90_000).unwrap();
        assert!(plain.split_off(90_001).is_none(), "more than it should have");
        let (mut split, mut out) = (plain.split_off(80_000).unwrap(), Vec::new());
        while split.next(PIECE, &mut out).unwrap() > 0 {}
        assert!(out == bytes[..80_000]);
        assert_eq!(plain.next(PIECE, &mut out).unwrap(), 10_000);
        assert!(out == bytes[..90_000]);
        let error = plain.next(PIECE, &mut out).unwrap_err();
        assert!(matches!(error, Error::ArchiveInvalid { offset: 90_500, .. }), "{error:?}");

        let gzip = pressed(&bytes, Codec::Gzip, Effort::Quick);
        let length = gzip.len() as u64;
        assert!(Decoder::new(Codec::Gzip, gzip, length, 0, 100_000).unwrap().split_off(1).is_none());
    }

    /// Whatever is done to compressed bytes, they are refused or decoded to the same content.
    #[test]
    fn damaged_bytes_are_refused() {
        let bytes = text(200_000);
        let gzip = pressed(&bytes, Codec::Gzip, Effort::Quick);
        let zstd = through(&["zstd", "-q", "-1", "-c"], &bytes);
        for (codec, whole) in [(Codec::Gzip, gzip), (Codec::Zstd, zstd), (Codec::None, bytes.clone())] {
            let size = bytes.len() as u64;
            let refused = |bytes: &[u8], size: u64| {
                let Err(error) = decoded(codec, bytes, size) else {
                    panic!("{codec:?}: {} of {} bytes, said to be {size}", bytes.len(), whole.len())
                };
                assert!(
                    matches!(error, Error::ArchiveInvalid { .. } | Error::ArchiveTruncated { .. }),
                    "{error:?}"
                );
            };
            for cut in [0, 1, 9, 17, whole.len() / 2, whole.len() - 5, whole.len() - 1] {
                refused(&whole[..cut], size);
            }
            refused(&[&whole[..], b"x"].concat(), size);
            refused(&[&whole[..], &whole[..]].concat(), size);
            for wrong in [0, size - 1, size + 1, u64::MAX] {
                refused(&whole, wrong);
            }
            if codec == Codec::None {
                continue;
            }
            let mut state = 7_usize;
            for _ in 0..300 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let mut damaged = whole.clone();
                let at = (state >> 16) % damaged.len();
                damaged[at] ^= 1 << ((state >> 8) & 7);
                if let Ok(out) = decoded(codec, &damaged, size) {
                    // A header's time, for example, does not change the content.
                    assert!(out == bytes, "{codec:?}: byte {at}");
                }
            }
        }
    }

    #[test]
    fn a_zstd_frame_with_a_large_window_is_refused() {
        let bytes = text(40_000_000);
        let compressed = through(&["zstd", "-q", "--long=25", "-1", "-c"], &bytes);
        let error = decoded(Codec::Zstd, &compressed, bytes.len() as u64).unwrap_err();
        assert!(matches!(error, Error::ArchiveInvalid { .. }), "{error:?}");
    }

    #[test]
    fn a_decompression_bomb_is_refused_at_the_expected_size() {
        let bomb = pressed(&vec![0; 64 << 20], Codec::Gzip, Effort::Quick);
        let mut decoder = Decoder::new(Codec::Gzip, bomb.clone(), bomb.len() as u64, 100, 1000).unwrap();
        let mut out = Vec::new();
        assert_eq!(decoder.next(PIECE, &mut out).unwrap(), 1000);
        let error = decoder.next(PIECE, &mut out).unwrap_err();
        assert!(error.to_string().contains("longer than the 1000 bytes"), "{error}");
        assert_eq!(out.len(), 1000);
    }
}
