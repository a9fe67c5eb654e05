//! Downloads that were truncated or damaged on the way.

use crate::place::{Place, refused, restore};
use crate::random::Random;
use crate::raw_tar::{BLOCK, CHECKSUM, RawTar};
use crate::reading::unpack;
use crate::tree::{DIR, Picture, Tree, assert_same, file, link, to_tar, tree};
use sandbox_managed_runtime::tree::filter::Filter;

fn uploaded() -> Tree {
    tree([("a", DIR), ("a/one", file("1")), ("b", file("2")), ("c", link("b")), ("empty", file(""))])
}

/// A download that changes something in every way: long names, PAX records, links, and content of several
/// blocks.
fn download() -> (RawTar, Tree) {
    let mut theirs = uploaded();
    theirs.remove(&b"b"[..]);
    theirs.insert(b"a/one".to_vec(), file(vec![b'x'; 3 * BLOCK + 7]));
    theirs.insert(b"full".to_vec(), file(vec![0; 2 * BLOCK]));
    theirs.insert("n".repeat(150).into_bytes(), link("t".repeat(180)));
    let tar =
        to_tar(&theirs).pax(b'x', &[("path", b"pax")]).file("x", "named by PAX").hard_link("hard", "full");
    theirs.insert(b"pax".to_vec(), file("named by PAX"));
    theirs.insert(b"hard".to_vec(), file(vec![0; 2 * BLOCK]));
    (tar, theirs)
}

#[test]
fn a_download_truncated_anywhere_is_refused() {
    let (tar, theirs) = download();
    let archive = tar.end();
    let place = Place::with(&uploaded());
    let (client, session) = place.prepare_canned();
    let before = Picture::of(&place.workspace());
    let mut random = Random::new(1);
    let mut cuts: Vec<usize> = (0..archive.len()).step_by(BLOCK).collect();
    cuts.extend((0..400).map(|_| random.below(archive.len())));
    cuts.extend((0..BLOCK).map(|back| archive.len() - 1 - back));
    for cut in cuts {
        client.answer_unmarked(&archive[..cut]);
        let error = refused(&session, &*client);
        assert_eq!(error.code(), "ERR_SANDBOX_ARCHIVE_TRUNCATED", "cut at {cut}: {error}");
        assert!(error.to_string().contains(&format!("byte {cut}:")), "cut at {cut}: {error}");
    }
    assert_eq!(Picture::of(&place.workspace()), before);
    client.answer(archive);
    restore(&session, &*client).unwrap();
    assert_same(&place.tree(), &theirs, "whole at last");
}

#[test]
fn a_truncated_archive_is_refused_with_what_is_missing() {
    let archive = RawTar::new().file("a", "1").end();
    for (length, missing) in [
        (0, "a header or the end mark is missing"),
        (BLOCK + 1, "(512 bytes at byte 512, of which 1 came)"),
        (BLOCK - 1, "(512 bytes at byte 0, of which 511 came)"),
        (3 * BLOCK, "the end mark is two blocks of zeros, and one is missing"),
    ] {
        let error = unpack(&archive[..length], None, &Filter::default()).unwrap_err();
        assert!(error.to_string().contains(missing), "{length} bytes: {error}");
    }
}

/// Whether two headers differ only in how their checksum is written: it may end in a space or a NUL, and have
/// spaces instead of leading zeros.
fn says_the_same(header: &[u8], damaged: &[u8]) -> bool {
    let number = |header: &[u8]| {
        let text = std::str::from_utf8(&header[CHECKSUM]).ok()?.trim_start_matches(' ');
        u32::from_str_radix(text.trim_end_matches([' ', '\0']), 8).ok()
    };
    let after = CHECKSUM.end..BLOCK;
    header[..CHECKSUM.start] == damaged[..CHECKSUM.start]
        && header[after.clone()] == damaged[after]
        && number(header) == number(damaged)
}

#[test]
fn a_flipped_bit_in_a_header_is_refused() {
    let (tar, theirs) = download();
    let archive = tar.end();
    let place = Place::with(&uploaded());
    let (client, session) = place.prepare_canned();
    let before = Picture::of(&place.workspace());
    let whole = unpack(&archive, None, &Filter::default()).unwrap().entries;
    let mut at = 0;
    let mut headers = 0;
    while archive[at] != 0 {
        // All headers are alike for a checksum: every bit of some headers, and some bits of each.
        let step = if headers % 6 == 1 { 1 } else { 37 };
        for bit in (0..BLOCK * 8).step_by(step) {
            let mut damaged = archive.clone();
            damaged[at + bit / 8] ^= 1 << (bit % 8);
            if says_the_same(&archive[at..], &damaged[at..]) {
                assert_eq!(unpack(&damaged, None, &Filter::default()).unwrap().entries, whole, "bit {bit}");
                continue;
            }
            client.answer_unmarked(damaged);
            let error = refused(&session, &*client);
            assert_eq!(
                error.code(),
                "ERR_SANDBOX_ARCHIVE_INVALID",
                "bit {bit} of the header at {at}: {error}"
            );
        }
        headers += 1;
        let size = std::str::from_utf8(&archive[at + 124..at + 135]).unwrap();
        at += BLOCK + usize::from_str_radix(size, 8).unwrap().next_multiple_of(BLOCK);
    }
    assert!(headers > 10);
    assert_eq!(Picture::of(&place.workspace()), before);
    for bit in (0..2 * BLOCK * 8).step_by(3) {
        let mut damaged = archive.clone();
        damaged[at + bit / 8] ^= 1 << (bit % 8);
        client.answer_unmarked(damaged);
        refused(&session, &*client);
    }
    assert_eq!(Picture::of(&place.workspace()), before);
    client.answer(archive);
    restore(&session, &*client).unwrap();
    assert_same(&place.tree(), &theirs, "undamaged at last");
}
