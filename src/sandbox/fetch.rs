//! The sandbox's archive, part by part, as one stream. The next part travels while one is worked on.

use std::sync::Mutex;
use std::time::Instant;

use futures_util::stream::{FuturesOrdered, StreamExt as _};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::client::{Part, RunError, SandboxClient, blocking, clean_up, persist};
use super::send::Way;
use crate::archive::codec::Decoder;
use crate::archive::source::{Bytes, Stream, Whole};
use crate::error::{Error, Result};
use crate::sync::lock;
use crate::transfer::link::Link;
use crate::transfer::parts::{TRAILER_MAX, Trailer, Wish, part_path};

/// What travels, for progress.
const LABEL: &str = "workspace";

/// A download of which the first part is here.
pub struct Fetched<D: Bytes> {
    /// The bytes of the whole archive, as far as they come.
    pub stream: Box<dyn Stream>,
    /// How many bytes the archive has.
    pub size: u64,
    /// What brings the further parts, where there are any.
    pub rest: Option<Rest<D>>,
}

/// The parts of a download that are still to come.
pub struct Rest<D: Bytes> {
    trailer: Trailer,
    sender: Sender<Decoder<D>>,
}

/// Reads the first part, and removes it from the sandbox.
pub async fn fetch<C: SandboxClient>(
    client: &C,
    archive: &str,
    wish: Wish,
    way: &Way,
) -> Result<Fetched<C::Download>, RunError<C::Failure>> {
    let part = Part { label: LABEL, ..Part::default() };
    let file = read(client, archive, part, &way.link).await?;
    // What stays there is overwritten by the next download, and cleared with the sandbox.
    let _left_behind = client.remove(archive).await;
    let fetched = blocking(move || {
        let size = file.size();
        let mut end = Vec::new();
        let length = size.min(TRAILER_MAX as u64);
        file.copy(size - length, usize::try_from(length).unwrap_or(0), &mut end)?;
        let Some((before, trailer)) = Trailer::split(&end)? else {
            return Ok(Fetched { stream: Box::new(Whole::new(file)), size, rest: None });
        };
        if trailer.part_size != wish.part_size {
            return Err(Error::ArchiveInvalid {
                offset: 0,
                entry: None,
                reason: format!("its parts are of {} bytes, not {}", trailer.part_size, wish.part_size),
            });
        }
        let bytes = size - length + before as u64;
        let first = Decoder::new(trailer.codecs[0], file, bytes, 0, trailer.size_of(0))?;
        // One part is worked on while one more is here or on its way.
        let (sender, coming) = mpsc::channel(1);
        let stream = Parts { part: Some(first), left: trailer.codecs.len() - 1, coming };
        let size = trailer.size;
        let rest = (stream.left > 0).then_some(Rest { trailer, sender });
        Ok(Fetched { stream: Box::new(stream), size, rest })
    });
    Ok(fetched.await?)
}

impl<D: Bytes + 'static> Rest<D> {
    /// Reads the further parts in their order, and removes them from the sandbox, until all are read or no more are wanted.
    pub async fn bring<C: SandboxClient<Download = D>>(
        self,
        client: &C,
        archive: &str,
        way: &Way,
    ) -> Result<(), RunError<C::Failure>> {
        let count = self.trailer.codecs.len();
        let mut reading = FuturesOrdered::new();
        let (mut begun, mut done) = (1, 1);
        let outcome = loop {
            while begun < count && reading.len() < way.at_once.max(1) {
                reading.push_back(self.part(client, archive, begun, way));
                begun += 1;
            }
            if reading.is_empty() {
                break Ok(());
            }
            // Where the one who reads has failed, that is told there.
            let Ok(place) = self.sender.reserve().await else { break Ok(()) };
            match reading.next().await {
                Some(Ok(part)) => place.send(part),
                Some(Err(error)) => break Err(error),
                None => break Ok(()),
            }
            done += 1;
        };
        drop(reading);
        clean_up(client, (done..count).map(|number| part_path(archive, number))).await;
        outcome
    }

    async fn part<C: SandboxClient<Download = D>>(
        &self,
        client: &C,
        archive: &str,
        number: usize,
        way: &Way,
    ) -> Result<Decoder<D>, RunError<C::Failure>> {
        let path = part_path(archive, number);
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

/// Reads a file, again where the client says that its failure passes.
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

/// The parts of an archive as they come.
struct Parts<D: Bytes> {
    part: Option<Decoder<D>>,
    /// How many are still to come.
    left: usize,
    coming: Receiver<Decoder<D>>,
}

impl<D: Bytes> Stream for Parts<D> {
    fn next(&mut self, most: usize, into: &mut Vec<u8>) -> Result<usize> {
        loop {
            if let Some(part) = &mut self.part {
                let read = part.next(most, into)?;
                if read > 0 {
                    return Ok(read);
                }
                // Its memory is the client's again.
                self.part = None;
            }
            if self.left == 0 {
                return Ok(0);
            }
            self.left -= 1;
            // None comes any more where bringing them has failed, which is what is told.
            self.part = Some(self.coming.blocking_recv().ok_or(Error::Aborted)?);
        }
    }
}
