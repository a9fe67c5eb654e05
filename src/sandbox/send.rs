//! Uploads an archive in parts. The next part is made while one is uploaded.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::client::{
    Attachment, Part as Progress, RunError, SandboxClient, before_another, blocking, clean_up,
};
use crate::archive::codec::{Codec, Effort, compress};
use crate::archive::header::BLOCK;
use crate::archive::pack::{Contents, Layout, Sink};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::random;
use crate::state::tools::is_worth_trying;
use crate::sync::lock;
use crate::threads::waiting;
use crate::transfer::link::Link;
use crate::transfer::parts::{Part, part_path};

/// Less than that is not worth compressing: it fits a few packets of the network.
const COMPRESSED_MIN: usize = 16 * 1024;

/// How long to wait for parts that are still uploaded when another one has failed.
const LANDING: Duration = Duration::from_secs(10);

/// How archives are uploaded to one sandbox.
#[derive(Debug, Clone)]
pub struct Way {
    /// How many bytes a part has at most before it is compressed.
    pub part_bytes: u64,
    /// How many parts may be uploaded at once.
    pub at_once: usize,
    /// With what parts may be compressed.
    pub codec: Codec,
    /// Whether the first part that is compressed decides between gzip and zstd: nothing is known of such sandboxes.
    pub may_try_zstd: bool,
    /// The measured speed of the connection.
    pub link: Arc<Mutex<Link>>,
    /// Whether any archive has failed. It is set before anything is cleaned up, so that no further one begins meanwhile.
    pub failed: Arc<AtomicBool>,
}

/// By what share of itself the size of parts varies from upload to upload.
const SIZES_SHARE: u64 = 64;

/// The smallest size of parts that are uploaded at once, however many they are.
const CUT_MIN: u64 = 8 << 20;

impl Way {
    /// How many bytes a part has where an archive needs several: less than it may have where many are uploaded at once, so
    /// that all of them together are about one whole part.
    #[must_use]
    pub fn cut_bytes(&self) -> u64 {
        let share = self.part_bytes.checked_div(self.at_once as u64).unwrap_or(self.part_bytes);
        share.max(CUT_MIN).min(self.part_bytes)
    }

    /// How the next bytes are to be compressed, if they are.
    #[must_use]
    pub fn compression(&self) -> Option<Effort> {
        if self.codec == Codec::None { None } else { lock(&self.link).compression() }
    }

    /// Compresses the next bytes, where that is wanted and pays; with `codec` as it is afterwards.
    fn compressed(&mut self, bytes: &[u8], cancel: &Cancel) -> Result<Option<Vec<u8>>> {
        let Some(effort) = self.compression().filter(|_| bytes.len() >= COMPRESSED_MIN) else {
            return Ok(None);
        };
        let Some(compressed) = compress(bytes, self.codec, effort, cancel)? else { return Ok(None) };
        if !std::mem::take(&mut self.may_try_zstd) || self.codec != Codec::Gzip {
            return Ok(Some(compressed));
        }
        let other = compress(bytes, Codec::Zstd, effort, cancel)?;
        let other = other.filter(|other| is_worth_trying(compressed.len(), other.len()));
        if other.is_some() {
            self.codec = Codec::Zstd;
        }
        Ok(other.or(Some(compressed)))
    }
}

/// An archive that was sent.
#[derive(Debug)]
pub struct Delivered {
    /// What was packed.
    pub contents: Contents,
    /// All parts but the last.
    pub earlier: Vec<Part>,
    /// The last part.
    pub last: Part,
    /// The size of the last part's file, with what follows the archive.
    pub last_file: u64,
    /// How many bytes were packed.
    pub packed: u64,
    /// How many bytes were uploaded.
    pub sent: u64,
}

impl Delivered {
    /// Removes the files of an archive from the sandbox, where the command that would have done so has failed.
    pub(super) async fn discard<C: SandboxClient>(&self, client: &C, archive: &str) {
        clean_up(client, (0..=self.earlier.len()).map(|number| part_path(archive, number))).await;
    }

    /// How those parts are compressed that are.
    pub(super) fn codec(&self) -> Codec {
        let mut codecs = self.earlier.iter().chain([&self.last]).map(|part| part.codec);
        codecs.find(|&codec| codec != Codec::None).unwrap_or_default()
    }
}

/// What follows an archive, once the parts before the last one, and what was packed, are known.
/// Its length does not depend on what was packed, so it may be asked for before that is known.
pub type Tail = Arc<dyn Fn(&[Part], Option<&Contents>, u64) -> Vec<u8> + Send + Sync>;

/// An archive that can be sent.
#[derive(Debug)]
pub enum Ready<U> {
    /// One that fits a part: packed, in memory of the client's, with room for the tail behind it.
    Packed {
        /// The memory.
        memory: U,
        /// How many bytes of it are the archive's.
        size: usize,
        /// What was packed.
        contents: Contents,
    },
    /// One that does not: it is packed while it is uploaded.
    Layout(Layout),
}

/// Packs what fits one part.
pub async fn pack<C: SandboxClient>(
    client: &C,
    layout: Layout,
    tail: &Tail,
    way: &Way,
    cancel: &Cancel,
) -> Result<Ready<C::Upload>, RunError<C::Failure>> {
    let behind = tail.clone();
    let measured = blocking(move || {
        let tail = behind(&[], None, layout.size()).len();
        Ok((layout, tail))
    });
    let (layout, tail) = measured.await?;
    if layout.size() + tail as u64 > way.part_bytes {
        return Ok(Ready::Layout(layout));
    }
    let mut memory = client.allocate(layout.size() + tail as u64).await.map_err(RunError::Client)?;
    let (stop, attachment) = (cancel.clone(), client.attachment());
    let (laid_out, packed) = blocking(move || {
        let _held = attachment.hold()?;
        let bytes = memory.as_mut();
        let end = bytes.len() - tail;
        let packed = layout.pack(&mut bytes[..end], &stop)?;
        Ok((memory, packed))
    })
    .await?;
    let Some(size) = packed.reassembled_size() else {
        let size = laid_out.as_ref().len() - tail;
        return Ok(Ready::Packed { memory: laid_out, size, contents: packed.contents });
    };
    let mut memory = client.allocate(size + tail as u64).await.map_err(RunError::Client)?;
    let attachment = client.attachment();
    let done = blocking(move || {
        let _held = attachment.hold()?;
        let from = laid_out.as_ref();
        packed.assemble(&from[..from.len() - tail], memory.as_mut());
        let size = memory.as_ref().len() - tail;
        Ok(Ready::Packed { memory, size, contents: packed.contents })
    })
    .await?;
    Ok(done)
}

/// Sends an archive to `path` and the paths of its further parts, with the tail behind the last. Where something fails, what
/// may have arrived is discarded.
pub async fn send<C: SandboxClient>(
    client: &Arc<C>,
    label: &str,
    path: &str,
    archive: Ready<C::Upload>,
    tail: Tail,
    way: &Way,
    cancel: &Cancel,
) -> Result<Delivered, RunError<C::Failure>> {
    match archive {
        Ready::Layout(layout) => send_in_parts(client, label, path, layout, tail, way, cancel).await,
        Ready::Packed { memory, size, contents } => {
            let (attachment, stop, mut going) = (client.attachment(), cancel.clone(), way.clone());
            let (bytes, contents, last) = blocking(move || {
                let _held = attachment.hold()?;
                let mut memory = memory;
                let behind = tail(&[], Some(&contents), size as u64);
                if let Some(mut bytes) = going.compressed(&memory.as_ref()[..size], &stop)? {
                    let last = Part { size: bytes.len() as u64, codec: going.codec };
                    bytes.extend(behind);
                    return Ok((Bytes::Held(bytes), contents, last));
                }
                memory.as_mut()[size..].copy_from_slice(&behind);
                Ok((Bytes::Placed(memory), contents, Part::plain(size as u64)))
            })
            .await?;
            let packed = size as u64;
            let progress = Progress { label, number: 0, before: 0, size: packed, total: packed };
            let written = write(&**client, path, bytes, progress, &way.link).await;
            if written.is_err() {
                way.failed.store(true, Ordering::Release);
                clean_up(&**client, [path.to_owned()]).await;
            }
            let sent = written?;
            Ok(Delivered { contents, earlier: Vec::new(), last, last_file: sent, packed, sent })
        }
    }
}

/// Packs a folder while it is uploaded.
async fn send_in_parts<C: SandboxClient>(
    client: &Arc<C>,
    label: &str,
    path: &str,
    layout: Layout,
    tail: Tail,
    way: &Way,
    cancel: &Cancel,
) -> Result<Delivered, RunError<C::Failure>> {
    let (events, made) = mpsc::channel(1);
    let (memory, empty) = mpsc::channel(1);
    let total = layout.size();
    let (cut_way, attachment, stop) = (way.clone(), client.attachment(), cancel.clone());
    let packing = tokio::spawn(waiting(move || {
        let cutter = Cutter::new(layout.size(), tail, cut_way, attachment, events, empty, &stop);
        cutter.cut(&layout, &stop)
    }));
    let mut flight = Flight { client, label, path, total, way, flying: JoinSet::new(), begun: 0 };
    let sent = flight.conduct(made, memory).await;
    way.failed.fetch_or(sent.is_err(), Ordering::Release);
    let packed = packing.await.unwrap_or_else(|panicked| Err(Error::Internal(panicked.to_string())));
    let failure = match (sent, packed) {
        (Ok(sent), Ok(delivered)) => return Ok(Delivered { sent, ..delivered }),
        // Where sending failed, packing was stopped by that.
        (Err(failure), _) => failure,
        (_, Err(error)) => error.into(),
    };
    flight.discard().await;
    Err(failure)
}

/// A part that is ready for its upload.
struct Made<U> {
    bytes: Bytes<U>,
    /// How many bytes of the archive come before it, and how many are in it.
    before: u64,
    size: u64,
    /// Notified once its upload has begun: no further part is begun before that, so that at most one is made meanwhile.
    started: oneshot::Sender<()>,
}

enum Bytes<U> {
    /// In the client's own memory, which it fills.
    Placed(U),
    /// To be copied into the client's memory.
    Held(Vec<u8>),
}

/// What the thread that packs asks for.
enum Event<U> {
    /// Memory of the client's of so many bytes.
    Need(u64),
    /// To send a part.
    Send(Made<U>),
}

/// Cuts an archive into parts while it is made.
struct Cutter<U> {
    /// The part that is being filled, and how much of it is filled.
    part: Option<Filling<U>>,
    /// Memory of an earlier part that was compressed, to be filled again.
    spare: Option<Vec<u8>>,
    /// How many bytes of the archive go into a part.
    room: u64,
    /// How many bytes of the archive are still to come as planned.
    rest: u64,
    earlier: Vec<Part>,
    packed: u64,
    tail: Tail,
    way: Way,
    attachment: Attachment,
    events: Sender<Event<U>>,
    empty: Receiver<U>,
    /// Whether memory was asked for that has not been taken yet.
    is_coming: bool,
    cancel: Cancel,
}

struct Filling<U> {
    bytes: Bytes<U>,
    filled: usize,
    room: usize,
}

impl<U: AsMut<[u8]> + AsRef<[u8]> + Send + 'static> Cutter<U> {
    fn new(
        size: u64,
        tail: Tail,
        way: Way,
        attachment: Attachment,
        events: Sender<Event<U>>,
        empty: Receiver<U>,
        cancel: &Cancel,
    ) -> Self {
        // What follows the archive is to fit the last part, unless it is a large part of that itself.
        let cut = way.cut_bytes();
        let parts = usize::try_from(size / cut).unwrap_or(usize::MAX) + 2;
        let longest = vec![Part { size: cut, codec: Codec::Gzip }; parts.min(1 << 20)];
        let behind = tail(&longest, None, size).len() as u64;
        let room = cut.saturating_sub(behind).max(cut / 2);
        // Parts of another upload that arrive under the same names have another size, and are refused. They end where a block ends:
        // toybox's tar takes what it gets of a block at once for all of it.
        let steps = room / SIZES_SHARE / BLOCK as u64 + 1;
        let room = (room / BLOCK as u64 - random::bits() % steps) * BLOCK as u64;
        let cancel = cancel.clone();
        Self {
            part: None,
            spare: None,
            room,
            rest: size,
            earlier: Vec::new(),
            packed: 0,
            tail,
            way,
            attachment,
            events,
            empty,
            is_coming: false,
            cancel,
        }
    }

    /// Packs and cuts; then sends the last part with what follows the archive.
    fn cut(mut self, layout: &Layout, cancel: &Cancel) -> Result<Delivered> {
        let contents = layout.stream(true, &mut self, cancel)?;
        let (last, last_file) = self.finish(&contents)?;
        let Self { earlier, packed, .. } = self;
        Ok(Delivered { contents, earlier, last, last_file, packed, sent: 0 })
    }

    /// Begins a part. It is made in memory of ours where it is to be compressed, and otherwise where it is sent from.
    fn begin(&mut self) -> Result<Filling<U>> {
        let room =
            usize::try_from(self.room).map_err(|_| Error::Internal("a part beyond memory".to_owned()))?;
        // The last part gets its exact size when that is known.
        let bytes = if self.way.compression().is_some() || self.rest < self.room {
            let planned = room.min(usize::try_from(self.rest).unwrap_or(room));
            Bytes::Held(self.spare.take().unwrap_or_else(|| Vec::with_capacity(planned)))
        } else {
            self.ask_for_memory()?;
            let memory = self.empty.blocking_recv().ok_or(Error::Aborted)?;
            self.is_coming = false;
            // That of the next part comes while this one is made. Nothing is in it yet, so it takes none of the machine's.
            if self.rest >= 2 * self.room {
                self.ask_for_memory()?;
            }
            Bytes::Placed(memory)
        };
        Ok(Filling { bytes, filled: 0, room })
    }

    /// Asks for the memory of a part, unless it was asked for.
    fn ask_for_memory(&mut self) -> Result<()> {
        if !self.is_coming {
            self.give(Event::Need(self.room))?;
            self.is_coming = true;
        }
        Ok(())
    }

    fn give(&self, event: Event<U>) -> Result<()> {
        // The receiver is gone once sending has failed.
        self.events.blocking_send(event).map_err(|_| Error::Aborted)
    }

    /// Hands a part over, and waits until its upload has begun.
    fn hand_over(&self, bytes: Bytes<U>, before: u64, size: u64) -> Result<()> {
        let (started, waiting) = oneshot::channel();
        self.give(Event::Send(Made { bytes, before, size, started }))?;
        waiting.blocking_recv().map_err(|_| Error::Aborted)
    }

    /// The filled part as it is uploaded.
    fn pressed(&mut self, mut bytes: Vec<u8>) -> Result<(Vec<u8>, Codec)> {
        let Some(compressed) = self.way.compressed(&bytes, &self.cancel)? else {
            return Ok((bytes, Codec::None));
        };
        bytes.clear();
        self.spare = Some(bytes);
        Ok((compressed, self.way.codec))
    }

    /// The part that is being filled, or a new one.
    fn take_part(&mut self) -> Result<Filling<U>> {
        match self.part.take() {
            Some(part) => Ok(part),
            None => self.begin(),
        }
    }

    /// Sends a part if it is full, and keeps it otherwise.
    fn put_back(&mut self, part: Filling<U>) -> Result<()> {
        if part.filled == part.room {
            return self.send(part);
        }
        self.part = Some(part);
        Ok(())
    }

    /// Sends a part that is full.
    fn send(&mut self, Filling { bytes, filled, .. }: Filling<U>) -> Result<()> {
        let size = filled as u64;
        let (bytes, part) = match bytes {
            Bytes::Placed(memory) => (Bytes::Placed(memory), Part::plain(size)),
            Bytes::Held(bytes) => {
                let (bytes, codec) = self.pressed(bytes)?;
                let part = Part { size: bytes.len() as u64, codec };
                (Bytes::Held(bytes), part)
            }
        };
        self.earlier.push(part);
        let before = self.packed;
        self.packed += size;
        self.hand_over(bytes, before, size)
    }

    /// Sends the last part, with the tail behind it.
    fn finish(&mut self, contents: &Contents) -> Result<(Part, u64)> {
        let (bytes, size) = match self.part.take() {
            None => (Vec::new(), 0),
            Some(Filling { bytes: Bytes::Held(bytes), filled, .. }) => (bytes, filled as u64),
            Some(Filling { bytes: Bytes::Placed(memory), filled, .. }) => {
                let _held = self.attachment.hold()?;
                (memory.as_ref()[..filled].to_vec(), filled as u64)
            }
        };
        let before = self.packed;
        self.packed += size;
        let (mut bytes, codec) = self.pressed(bytes)?;
        let last = Part { size: bytes.len() as u64, codec };
        bytes.extend((self.tail)(&self.earlier, Some(contents), self.packed));
        let file = bytes.len() as u64;
        self.hand_over(Bytes::Held(bytes), before, size)?;
        Ok((last, file))
    }
}

impl<U: AsMut<[u8]> + AsRef<[u8]> + Send + 'static> Sink for Cutter<U> {
    fn room(&mut self) -> Result<u64> {
        let part = self.take_part()?;
        let room = part.room - part.filled;
        self.part = Some(part);
        Ok(room as u64)
    }

    fn in_place(
        &mut self,
        size: usize,
        make: &mut (dyn FnMut(&mut [u8]) -> Result<bool> + Send),
    ) -> Result<()> {
        let Some(mut part) = self.part.take() else {
            return Err(Error::Internal("a part was filled before it was begun".to_owned()));
        };
        let place = part.filled..part.filled + size;
        let is_made = match &mut part.bytes {
            Bytes::Held(held) => {
                held.resize(place.end, 0);
                let is_made = make(&mut held[place])?;
                if !is_made {
                    held.truncate(part.filled);
                }
                is_made
            }
            Bytes::Placed(memory) => {
                let _held = self.attachment.hold()?;
                let place = &mut memory.as_mut()[place];
                let is_made = make(place)?;
                if !is_made {
                    place.fill(0);
                }
                is_made
            }
        };
        if is_made {
            part.filled += size;
            self.rest = self.rest.saturating_sub(size as u64);
        }
        self.put_back(part)
    }

    fn bytes(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let mut part = self.take_part()?;
            let (now, later) = bytes.split_at(bytes.len().min(part.room - part.filled));
            match &mut part.bytes {
                Bytes::Held(held) => held.extend_from_slice(now),
                Bytes::Placed(memory) => {
                    let _held = self.attachment.hold()?;
                    memory.as_mut()[part.filled..part.filled + now.len()].copy_from_slice(now);
                }
            }
            part.filled += now.len();
            self.rest = self.rest.saturating_sub(now.len() as u64);
            bytes = later;
            self.put_back(part)?;
        }
        Ok(())
    }
}

/// The parts that are being uploaded.
struct Flight<'a, C: SandboxClient> {
    client: &'a Arc<C>,
    label: &'a str,
    path: &'a str,
    total: u64,
    way: &'a Way,
    flying: JoinSet<Result<u64, RunError<C::Failure>>>,
    /// How many parts were begun.
    begun: usize,
}

impl<C: SandboxClient> Flight<'_, C> {
    /// Uploads parts until the last one. Returns how many bytes were uploaded.
    async fn conduct(
        &mut self,
        mut made: Receiver<Event<C::Upload>>,
        memory: Sender<C::Upload>,
    ) -> Result<u64, RunError<C::Failure>> {
        let mut sent = 0;
        while let Some(event) = made.recv().await {
            match event {
                Event::Need(size) => {
                    let allocated = self.client.allocate(size).await.map_err(RunError::Client)?;
                    // The receiver is gone once packing has failed, which is reported then.
                    drop(memory.send(allocated).await);
                }
                Event::Send(part) => {
                    while self.flying.len() >= self.way.at_once.max(1) {
                        sent += self.landed().await?;
                    }
                    self.start(part);
                }
            }
        }
        while !self.flying.is_empty() {
            sent += self.landed().await?;
        }
        Ok(sent)
    }

    async fn landed(&mut self) -> Result<u64, RunError<C::Failure>> {
        match self.flying.join_next().await {
            None => Ok(0),
            Some(Ok(sent)) => sent,
            Some(Err(panicked)) => Err(Error::Internal(panicked.to_string()).into()),
        }
    }

    fn start(&mut self, part: Made<C::Upload>) {
        let number = self.begun;
        self.begun += 1;
        // Where nothing waits for it any more, packing has failed, which is reported then.
        part.started.send(()).unwrap_or_default();
        let (client, way, total) = (self.client.clone(), self.way.clone(), self.total);
        let (label, path) = (self.label.to_owned(), part_path(self.path, number));
        self.flying.spawn(async move {
            let total = total.max(part.before + part.size);
            let progress = Progress { label: &label, number, before: part.before, size: part.size, total };
            write(&*client, &path, part.bytes, progress, &way.link).await
        });
    }

    /// Removes what may have arrived.
    async fn discard(&mut self) {
        self.way.failed.store(true, Ordering::Release);
        // A part that is still uploaded would arrive afterwards; a client that never answers is not waited for.
        let landing = async { while self.flying.join_next().await.is_some() {} };
        if tokio::time::timeout(LANDING, landing).await.is_err() {
            self.flying.abort_all();
        }
        clean_up(&**self.client, (0..self.begun).map(|number| part_path(self.path, number))).await;
    }
}

/// Writes one file, and repeats that after a temporary failure. Returns its size in bytes.
async fn write<C: SandboxClient>(
    client: &C,
    path: &str,
    bytes: Bytes<C::Upload>,
    progress: Progress<'_>,
    link: &Mutex<Link>,
) -> Result<u64, RunError<C::Failure>> {
    let memory = match bytes {
        Bytes::Placed(memory) => memory,
        Bytes::Held(bytes) => placed(client, bytes).await?,
    };
    let size = memory.as_ref().len() as u64;
    let mut attempt = 0;
    loop {
        match client.write_file(path, &memory, progress).await {
            Ok(took) => {
                lock(link).transferred(size, took);
                return Ok(size);
            }
            Err(failure) => before_another(client, failure, &mut attempt).await?,
        }
    }
}

/// Copies bytes into memory of the client's.
async fn placed<C: SandboxClient>(client: &C, bytes: Vec<u8>) -> Result<C::Upload, RunError<C::Failure>> {
    let mut memory = client.allocate(bytes.len() as u64).await.map_err(RunError::Client)?;
    let attachment = client.attachment();
    let placed = blocking(move || {
        let _held = attachment.hold()?;
        memory.as_mut().copy_from_slice(&bytes);
        Ok(memory)
    });
    Ok(placed.await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_smaller_where_several_are_uploaded_at_once() {
        const MIB: u64 = 1 << 20;
        for (part_bytes, at_once, expected) in [
            (32 * MIB, 1, 32 * MIB),
            (32 * MIB, 0, 32 * MIB),
            (32 * MIB, 2, 16 * MIB),
            (32 * MIB, 4, 8 * MIB),
            (32 * MIB, 100, 8 * MIB),
            (256 * MIB, 4, 64 * MIB),
            (MIB, 4, MIB),
        ] {
            let (link, failed) = (Arc::default(), Arc::default());
            let way = Way { part_bytes, at_once, codec: Codec::None, may_try_zstd: false, link, failed };
            assert_eq!(way.cut_bytes(), expected, "{part_bytes} bytes, {at_once} at once");
        }
    }
}
