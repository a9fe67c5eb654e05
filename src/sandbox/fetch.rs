//! Downloads the sandbox's archive part by part, as one stream. The next part is downloaded while one is
//! processed.

use std::sync::Mutex;
use std::time::Instant;

use futures_util::stream::{FuturesOrdered, StreamExt as _};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::client::{Part, RunError, SandboxClient, blocking, persist};
use super::send::Way;
use crate::archive::codec::Decoder;
use crate::archive::source::{Bytes, Stream, Whole};
use crate::error::{Error, Result};
use crate::sync::lock;
use crate::transfer::link::Link;
use crate::transfer::parts::{TRAILER_MAX, Trailer, Wish, download_part_path};

/// What is transferred, for progress.
const LABEL: &str = "workspace";

/// A download whose first part has arrived.
pub struct Fetched<D: Bytes> {
    /// The archive as a stream of bytes, which waits for the parts that follow.
    pub stream: Box<dyn Stream>,
    /// The size of the archive in bytes.
    pub size: u64,
    /// Downloads the parts that follow, if there are any.
    pub rest: Option<Rest<D>>,
    /// Whether the download says at its end that it is the one that was asked for. One that was made by other means than the
    /// script does not.
    pub is_named: bool,
}

/// The parts of a download that have not arrived yet.
pub struct Rest<D: Bytes> {
    trailer: Trailer,
    sender: Sender<Decoder<D>>,
}

/// Downloads the first part, and removes it from the sandbox.
///
/// [`Error::OthersDownload`] if it is not of the download with that name.
pub async fn fetch<C: SandboxClient>(
    client: &C,
    archive: &str,
    name: &str,
    wish: Wish,
    way: &Way,
) -> Result<Fetched<C::Download>, RunError<C::Failure>> {
    let part = Part { label: LABEL, ..Part::default() };
    let file = read(client, archive, part, &way.link).await?;
    let name = name.to_owned();
    let fetched = blocking(move || {
        let size = file.size();
        let mut end = Vec::new();
        let length = size.min(TRAILER_MAX as u64);
        file.copy(size - length, usize::try_from(length).unwrap_or(0), &mut end)?;
        let Some((before, trailer)) = Trailer::split(&end)? else {
            return Ok(Fetched { stream: Box::new(Whole::new(file)), size, rest: None, is_named: false });
        };
        if trailer.name != name {
            return Err(Error::OthersDownload);
        }
        if trailer.part_size != wish.part_size {
            return Err(Error::ArchiveInvalid {
                offset: 0,
                entry: None,
                reason: format!("its parts are of {} bytes, not {}", trailer.part_size, wish.part_size),
            });
        }
        let bytes = size - length + before as u64;
        let first = Decoder::new(trailer.codecs[0], file, bytes, 0, trailer.size_of(0))?;
        // One part is processed while one more is in memory or being downloaded.
        let (sender, coming) = mpsc::channel(1);
        let stream = Parts { part: Some(first), left: trailer.codecs.len() - 1, coming };
        let size = trailer.size;
        let rest = (stream.left > 0).then_some(Rest { trailer, sender });
        Ok(Fetched { stream: Box::new(stream), size, rest, is_named: true })
    });
    let fetched = fetched.await?;
    // If this fails, the next download overwrites the file, or it goes with the sandbox. (That of another command stays.)
    let _left_behind = client.remove(archive).await;
    Ok(fetched)
}

impl<D: Bytes + 'static> Rest<D> {
    /// Downloads the parts that follow, in order, and removes each from the sandbox, until all are read or no
    /// more are wanted.
    pub async fn bring<C: SandboxClient<Download = D>>(
        self,
        client: &C,
        archive: &str,
        way: &Way,
    ) -> Result<(), RunError<C::Failure>> {
        let count = self.trailer.codecs.len();
        let mut reading = FuturesOrdered::new();
        let mut begun = 1;
        loop {
            while begun < count && reading.len() < way.at_once.max(1) {
                reading.push_back(self.part(client, archive, begun, way));
                begun += 1;
            }
            if reading.is_empty() {
                return Ok(());
            }
            // If the reader has failed, it reports that itself.
            let Ok(place) = self.sender.reserve().await else { return Ok(()) };
            match reading.next().await {
                Some(part) => place.send(part?),
                None => return Ok(()),
            }
        }
    }

    async fn part<C: SandboxClient<Download = D>>(
        &self,
        client: &C,
        archive: &str,
        number: usize,
        way: &Way,
    ) -> Result<Decoder<D>, RunError<C::Failure>> {
        let path = download_part_path(archive, number, &self.trailer.name);
        let (before, size) = (self.trailer.part_size * number as u64, self.trailer.size_of(number));
        let part = Part { label: LABEL, number, before, size, total: self.trailer.size };
        let file = read(client, &path, part, &way.link).await?;
        let _left_behind = client.remove(&path).await;
        let codec = self.trailer.codecs[number];
        let decoder = blocking(move || {
            let length = file.size();
            Decoder::new(codec, file, length, before, size)
        });
        Ok(decoder.await?)
    }
}

/// Reads a file, again if the client says that its failure is temporary. How fast that was may include the time of a busy
/// event loop: it decides only whether the sandbox is asked to compress the next download.
async fn read<C: SandboxClient>(
    client: &C,
    path: &str,
    part: Part<'_>,
    link: &Mutex<Link>,
) -> Result<C::Download, RunError<C::Failure>> {
    persist(client, || async {
        let started = Instant::now();
        let file = client.read_file(path, Some(part)).await?;
        lock(link).transferred(file.size(), started.elapsed());
        Ok(file)
    })
    .await
}

/// The parts of an archive as they arrive.
struct Parts<D: Bytes> {
    part: Option<Decoder<D>>,
    /// How many have not arrived yet.
    left: usize,
    coming: Receiver<Decoder<D>>,
}

impl<D: Bytes + 'static> Stream for Parts<D> {
    /// Splits off only of the last part: an earlier one would stay in memory beside those that follow.
    fn split_off(&mut self, size: u64) -> Option<Box<dyn Stream>> {
        if self.left == 0 { self.part.as_mut()?.split_off(size) } else { None }
    }

    fn next(&mut self, most: usize, into: &mut Vec<u8>) -> Result<usize> {
        loop {
            if let Some(part) = &mut self.part {
                let read = part.next(most, into)?;
                if read > 0 {
                    return Ok(read);
                }
                // The client gets its memory back.
                self.part = None;
            }
            if self.left == 0 {
                return Ok(0);
            }
            self.left -= 1;
            // No part arrives any more if the download has failed, and that failure is the one to report.
            self.part = Some(self.coming.blocking_recv().ok_or(Error::Aborted)?);
        }
    }
}
