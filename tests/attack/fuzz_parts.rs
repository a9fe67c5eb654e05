//! A fuzzer for what reads the parts of a download: parts that are cut, longer, exchanged, missing, damaged or said to be
//! others than they are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use sandbox_managed_runtime::archive::codec::{Codec, Effort, compress};
use sandbox_managed_runtime::archive::source::PIECE;
use sandbox_managed_runtime::cancel::Cancel;
use sandbox_managed_runtime::sandbox::client::{Part, SandboxClient};
use sandbox_managed_runtime::sandbox::fetch::{Fetched, fetch};
use sandbox_managed_runtime::sandbox::send::Way;
use sandbox_managed_runtime::transfer::link::Link;
use sandbox_managed_runtime::transfer::parts::{PART_UNIT, Wish, download_part_path};

use crate::fuzz::fuzz;
use crate::random::Random;

const ARCHIVE: &str = "/runtime/archive.tar";

/// The name of the download.
const NAME: &str = "1f";

/// The files of a sandbox that has only the parts of a download.
struct Shelf(Mutex<BTreeMap<String, Vec<u8>>>);

impl SandboxClient for Shelf {
    type Failure = String;
    type Upload = Vec<u8>;
    type Download = Vec<u8>;

    async fn allocate(&self, _: u64) -> Result<Vec<u8>, String> {
        unreachable!("a download sends nothing")
    }

    async fn make_dir(&self, _: &str) -> Result<Duration, String> {
        unreachable!("a download makes no folder")
    }

    async fn write_file(&self, _: &str, _: &Vec<u8>, _: Part<'_>) -> Result<Duration, String> {
        unreachable!("a download sends nothing")
    }

    async fn read_file(&self, path: &str, _: Option<Part<'_>>) -> Result<Vec<u8>, String> {
        self.0.lock().unwrap().get(path).cloned().ok_or_else(|| format!("there is no {path}"))
    }

    async fn remove(&self, path: &str) -> Result<(), String> {
        self.0.lock().unwrap().remove(path);
        Ok(())
    }

    async fn run(&self, _: &str) -> Result<(), String> {
        unreachable!("a download runs nothing here")
    }

    fn is_passing(&self, _: &String) -> bool {
        false
    }

    async fn discard(&self, path: &str) {
        self.0.lock().unwrap().remove(path);
    }

    async fn clear(&self, _: &str) {
        unreachable!("a download runs nothing here")
    }
}

/// Bytes of which some shrink and some do not.
fn content(random: &mut Random) -> Vec<u8> {
    let mut content = Vec::new();
    let unit = usize::try_from(PART_UNIT).unwrap();
    let size = random.below(4 * unit) + random.below(2) * unit;
    while content.len() < size {
        let length = 1 + random.below(unit);
        if random.once_in(2) {
            let seed = random.next();
            content.extend((0..length as u64).map(|at| (at.wrapping_mul(seed) >> 29).to_le_bytes()[0]));
        } else {
            content.extend(b"a line that comes again\n".iter().cycle().take(length));
        }
    }
    content
}

/// One part as a sandbox makes it, and its codec.
fn encoded(random: &mut Random, part: &[u8]) -> (Codec, Vec<u8>) {
    match random.below(3) {
        0 => compress(part, Codec::Gzip, Effort::Quick, &Cancel::default())
            .unwrap()
            .map(|gzip| (Codec::Gzip, gzip)),
        1 => Some((Codec::Zstd, compress_to_vec(part, CompressionLevel::Fastest))),
        _ => None,
    }
    .unwrap_or_else(|| (Codec::None, part.to_vec()))
}

/// Damages the parts in one of the ways that matter. `true` where the content of a compressed part may be another one's.
fn damage(random: &mut Random, parts: &mut Vec<(Codec, Vec<u8>)>, size: &mut u64) -> bool {
    let at = random.below(parts.len());
    let length = parts[at].1.len();
    match random.below(8) {
        0 => parts[at].1.truncate(random.below(length.max(1))),
        1 => parts[at].1.extend_from_slice(b"and more"),
        2 if length > 0 => parts[at].1[random.below(length)] ^= 1 << random.below(8),
        3 => drop(parts.remove(at)),
        4 => {
            let other = random.below(parts.len());
            parts.swap(at, other);
            return true;
        }
        5 => parts[at].0 = *random.pick(&[Codec::None, Codec::Gzip, Codec::Zstd]),
        6 => *size = random.next() >> random.below(64),
        _ => {
            let twice = parts[at].1.clone();
            parts[at].1.extend(twice);
        }
    }
    false
}

#[test]
fn fuzz_the_parts_of_a_download() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let (whole, refused) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    fuzz(60, |random| {
        let content = content(random);
        let unit = usize::try_from(PART_UNIT).unwrap();
        let mut parts: Vec<_> = content.chunks(unit).map(|part| encoded(random, part)).collect();
        if parts.is_empty() {
            parts.push((Codec::None, Vec::new()));
        }
        let mut size = content.len() as u64;
        let is_damaged = random.once_in(2);
        let mut exchanged = is_damaged && damage(random, &mut parts, &mut size);
        let letters: String = parts.iter().map(|(codec, _)| codec.letter()).collect();
        let mut files: BTreeMap<_, _> = parts
            .iter()
            .enumerate()
            .map(|(number, (_, bytes))| (download_part_path(ARCHIVE, number, NAME), bytes.clone()))
            .collect();
        let trailer = format!("\npaperclip-parts {PART_UNIT} {size} {letters} {NAME}\n");
        files.entry(ARCHIVE.to_owned()).or_default().extend_from_slice(trailer.as_bytes());
        if is_damaged && random.once_in(8) {
            let first = files.get_mut(ARCHIVE).unwrap();
            let at = first.len() - 1 - random.below(trailer.len());
            first[at] ^= 1 << random.below(8);
            exchanged = true;
        }
        let plain = parts.iter().any(|(codec, _)| *codec == Codec::None);

        let client = Arc::new(Shelf(Mutex::new(files)));
        let way = Way {
            part_bytes: PART_UNIT,
            at_once: 1 + random.below(3),
            codec: Codec::None,
            may_try_zstd: false,
            link: Arc::<Mutex<Link>>::default(),
            failed: Arc::default(),
        };
        let most = *random.pick(&[1000, unit, PIECE]);
        let read: Result<(Vec<u8>, u64), String> = runtime.block_on(async {
            let wish = Wish::new(PART_UNIT, true);
            let fetched =
                fetch(&*client, ARCHIVE, NAME, wish, &way).await.map_err(|error| format!("{error:?}"))?;
            let Fetched { mut stream, size, rest, .. } = fetched;
            let reading = tokio::task::spawn_blocking(move || {
                let mut bytes = Vec::new();
                while stream.next(most, &mut bytes).map_err(|error| error.to_string())? > 0 {}
                Ok((bytes, size))
            });
            let brought = match rest {
                Some(rest) => rest.bring(&*client, ARCHIVE, &way).await.map_err(|error| format!("{error:?}")),
                None => Ok(()),
            };
            let read = reading.await.unwrap();
            brought.and(read)
        });
        match read {
            Ok((bytes, size)) => {
                assert_eq!(bytes.len() as u64, size);
                // What is not compressed has no checksum of its own; the archive's entries tell there.
                if !is_damaged || (!plain && !exchanged) {
                    assert!(bytes == content, "{letters}: other bytes came");
                }
                whole.set(whole.get() + 1);
            }
            Err(error) => {
                assert!(is_damaged, "{letters}: {error}");
                refused.set(refused.get() + 1);
            }
        }
        let left: Vec<_> = client.0.lock().unwrap().keys().cloned().collect();
        assert!(is_damaged || left.is_empty(), "{left:?} stayed in the sandbox");
    });
    assert!(whole.get() > 20 && refused.get() > 10, "{} read, {} refused", whole.get(), refused.get());
}
