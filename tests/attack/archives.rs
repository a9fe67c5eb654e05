//! Downloads that no honest tar would make. Each one is refused with the workspace untouched, or restored
//! correctly.

use sandbox_managed_runtime::archive::unpack::CONTROL_MAX;
use sandbox_managed_runtime::error::Error;
use sandbox_managed_runtime::path::RelativePath;
use sandbox_managed_runtime::sandbox::client::RunError;
use sandbox_managed_runtime::tree::filter::Filter;

use crate::place::{Place, SECRET, refused, restore};
use crate::raw_tar::{
    BLOCK, CHECKSUM, Header, KIND, LINK, MAGIC, MODE, NAME, PREFIX, RawTar, SIZE, pax_record,
};
use crate::reading::unpack;
use crate::tree::{DIR, Node, Picture, Tree, assert_same, file, link, set_mode, to_tar, tree};

const TRUNCATED: &str = "ERR_SANDBOX_ARCHIVE_TRUNCATED";
const INVALID: &str = "ERR_SANDBOX_ARCHIVE_INVALID";
const UNSAFE: &str = "ERR_SANDBOX_UNSAFE_PATH";

/// The uploaded tree, with which every archive here begins.
fn uploaded() -> Tree {
    tree([
        ("dir", DIR),
        ("dir/inner", file("inner")),
        ("keep", file("keep")),
        ("link", link("keep")),
        ("run", Node::File(0o755, b"#!/bin/sh\n".to_vec())),
    ])
}

/// An archive of the uploaded tree, to be continued.
fn tar() -> RawTar {
    to_tar(&uploaded())
}

/// Asserts that each archive is refused with that code, that the workspace stays as it is, including its
/// times, and that the same session accepts a good archive afterwards.
#[track_caller]
fn all_refused(code: &str, archives: Vec<(&str, Vec<u8>)>) {
    let place = Place::with(&uploaded());
    let (client, session) = place.prepare_canned();
    let before = Picture::inside(&place.workspace());
    let outside = place.outside_picture();
    for (title, archive) in archives {
        client.answer_unmarked(archive.clone());
        let error = refused(&session, &*client);
        assert_eq!(error.code(), code, "{title}: {error}");
        let message = error.to_string();
        assert!(message.contains("nothing was changed"), "{title}: {message}");
        if code != UNSAFE {
            let named = message.split_once("at byte ").and_then(|(_, rest)| rest.split([',', ':']).next());
            let offset: usize = named.and_then(|digits| digits.parse().ok()).expect("an offset");
            assert!(offset <= archive.len(), "{title}: {message}");
            // The part before the attack is valid.
            assert!(offset >= tar().cut().len().min(archive.len()), "{title}: {message}");
        }
        // A stage may have been made and removed.
        assert_eq!(Picture::inside(&place.workspace()), before, "{title}");
        place.assert_no_litter();
    }
    assert_eq!(place.outside_picture(), outside);
    client.answer_unmarked(tar().file("new", "new").end());
    restore(&session, &*client).unwrap();
    assert_eq!(place.tree().remove(&b"new"[..]), Some(file("new")));
}

/// What an archive restores, by path.
type Nodes<'a> = Vec<(&'a str, Node)>;

/// Asserts that each archive restores the uploaded tree and these nodes.
#[track_caller]
fn all_restored(archives: Vec<(&str, Vec<u8>, Nodes<'_>)>) {
    for (title, archive, nodes) in archives {
        let mut expected = uploaded();
        expected.extend(tree(nodes));
        restores_to(title, archive, &expected);
    }
}

#[track_caller]
fn restores_to(title: &str, archive: Vec<u8>, expected: &Tree) {
    let place = Place::with(&uploaded());
    let outside = place.outside_picture();
    let (client, session) = place.prepare_canned();
    client.answer(archive);
    restore(&session, &*client).unwrap_or_else(|error| panic!("{title}: {error:?}"));
    assert_same(&place.tree(), expected, title);
    place.assert_no_litter();
    assert_eq!(place.outside_picture(), outside, "{title}");
}

fn header(kind: u8, name: &str, size: usize) -> Header {
    Header::new(kind, name, size)
}

/// A number as base-256 in a size field, marked by the topmost bit.
fn base_256(top: u8, low: u64) -> [u8; 12] {
    let mut field = [0; 12];
    field[0] = top;
    field[4..].copy_from_slice(&low.to_be_bytes());
    field
}

#[test]
fn wrong_checksums_are_refused_and_all_spellings_accepted() {
    let damaged = |sum: &str| tar().header(&header(b'0', "x", 0).set(CHECKSUM, sum)).end();
    all_refused(
        INVALID,
        vec![
            ("another sum", damaged("007777\0 ")),
            ("no sum", damaged("")),
            ("no number", damaged("abcdef\0 ")),
            ("a sum of spaces", damaged("        ")),
            ("a byte changed after sealing", tar().header(&header(b'0', "x", 0).set(NAME, "y")).end()),
            ("text in place of a header", tar().bytes([b'a'; BLOCK]).end()),
            ("a sign", checked(|sum| format!("+{sum:06o}\0"))),
            ("a hexadecimal sum", checked(|sum| format!("{sum:06x}\0 "))),
            ("two numbers", checked(|sum| format!("{sum:o} {sum:o}"))),
            ("digits after the NUL", checked(|sum| format!("{sum:o}\x000"))),
            ("one too many", checked(|sum| format!("{:06o}\0 ", sum + 1))),
        ],
    );
    // As the tar programs write it, from the oldest on.
    let new = || vec![("x", file(""))];
    all_restored(vec![
        ("six digits, NUL, space", checked(|sum| format!("{sum:06o}\0 ")), new()),
        ("six digits, space, NUL", checked(|sum| format!("{sum:06o} \0")), new()),
        ("seven digits and NUL", checked(|sum| format!("{sum:07o}\0")), new()),
        ("eight digits", checked(|sum| format!("{sum:08o}")), new()),
        ("spaces before", checked(|sum| format!("{sum:6o}\0 ")), new()),
        ("spaces before and NUL", checked(|sum| format!("{sum:7o}\0")), new()),
        ("spaces all around", checked(|sum| format!(" {sum:o}  ")), new()),
        ("spaces to the end", checked(|sum| format!("{sum:8o}")), new()),
        ("two NULs", checked(|sum| format!("{sum:06o}\0\0")), new()),
        ("two spaces", checked(|sum| format!("{sum:06o}  ")), new()),
        ("few digits and NULs", checked(|sum| format!("{sum:o}")), new()),
    ]);
    // As tar programs compute it where a `char` is signed.
    let name = "caf\u{e9}";
    let unsigned: i64 = summed(&header(b'0', name, 0).set(CHECKSUM, " ".repeat(8)));
    let signed = unsigned - 2 * 256;
    let archive = tar().header(&header(b'0', name, 0).set(CHECKSUM, format!("{signed:06o}\0 "))).end();
    all_restored(vec![("a sum of signed bytes", archive, vec![(name, file(""))])]);
}

/// An archive with a file `x` whose checksum is written in the given way.
fn checked(form: impl Fn(i64) -> String) -> Vec<u8> {
    let header = header(b'0', "x", 0).set(CHECKSUM, " ".repeat(8));
    let sum = summed(&header);
    tar().header(&header.set(CHECKSUM, form(sum))).end()
}

fn summed(header: &Header) -> i64 {
    RawTar::new().header(header).cut().iter().map(|&byte| i64::from(byte)).sum()
}

#[test]
fn invalid_sizes_are_refused() {
    let sized =
        |field: &[u8]| tar().header(&header(b'0', "x", 0).set(SIZE, field).seal()).content("12345").end();
    all_refused(
        INVALID,
        vec![
            ("negative", sized(&[0xff; 12])),
            ("the most negative", sized(&base_256(0xc0, 0))),
            ("beyond 64 bits", sized(&base_256(0x81, 5))),
            ("no number", sized(b"0000000000x\0")),
            ("a sign", sized(b"-0000000005\0")),
            ("decimal", sized(b"00000000009\0")),
            ("two numbers", sized(b"00005 00005\0")),
            ("a size on a link", tar().entry(b'2', "x", "12345").end()),
            (
                "a size on a hard link",
                tar().header(&header(b'1', "x", 5).set(LINK, "keep").seal()).content("12345").end(),
            ),
            ("a size on a folder", tar().entry(b'5', "x/", "12345").end()),
            ("a size on a folder that only its slash tells", tar().entry(b'0', "x/", "12345").end()),
            ("a size on a FIFO", tar().entry(b'6', "x", "12345").end()),
            (
                "a mode that is no number",
                tar().header(&header(b'0', "x", 0).set(MODE, "rw-r--r-").seal()).end(),
            ),
            ("a negative mode", tar().header(&header(b'0', "x", 0).set(MODE, [0xff; 8]).seal()).end()),
        ],
    );
    all_refused(
        TRUNCATED,
        vec![
            ("8 GiB that are not there", sized(b"77777777777\0")),
            ("all that 64 bits hold", sized(&base_256(0x80, u64::MAX))),
            ("what rounding up overflows", sized(&base_256(0x80, u64::MAX - 100))),
            ("half of that", sized(&base_256(0x80, 1 << 63))),
            ("one block too many", tar().header(&header(b'0', "x", 3 * BLOCK + 1)).content("1").end()),
        ],
    );
    all_restored(vec![
        ("base-256 for a small size", sized(&base_256(0x80, 5)), vec![("x", file("12345"))]),
        ("spaces before the digits", sized(b"          5\0"), vec![("x", file("12345"))]),
        ("no NUL after the digits", sized(b"000000000005"), vec![("x", file("12345"))]),
    ]);
}

#[test]
fn contradicting_sizes_are_refused() {
    let disagree = |pax: &[u8], size: usize| {
        tar().pax(b'x', &[("size", pax)]).header(&header(b'0', "x", size)).content("12345").end()
    };
    all_refused(
        INVALID,
        vec![
            ("PAX smaller", disagree(b"0", 5)),
            ("PAX larger", disagree(b"512", 5)),
            ("PAX negative", disagree(b"-5", 5)),
            ("PAX with a plus", disagree(b"+5", 5)),
            ("PAX with a space", disagree(b" 5", 5)),
            ("PAX empty", disagree(b"", 5)),
            ("PAX in octal", disagree(b"005", 5)),
            ("PAX no number", disagree(b"5x", 5)),
            ("PAX beyond 64 bits", disagree(b"99999999999999999999", 5)),
            ("PAX on a folder", tar().pax(b'x', &[("size", b"512")]).dir("x").content("12345").end()),
            ("PAX on a link", tar().pax(b'x', &[("size", b"512")]).symlink("x", "y").content("12345").end()),
        ],
    );
    all_refused(TRUNCATED, vec![("PAX huge", disagree(b"18446744073709551615", 0))]);

    // The content that the PAX size covers is an archive itself. A reader that used the header's size would
    // take it for entries.
    let smuggled = RawTar::new().symlink("evil", "/etc").file("keep", "smuggled").end();
    let size = smuggled.len().to_string();
    let archive =
        tar().pax(b'x', &[("size", size.as_bytes())]).header(&header(b'0', "x", 0)).content(&smuggled).end();
    all_restored(vec![
        ("an archive as content", archive, vec![("x", file(&smuggled))]),
        ("both agree", disagree(b"5", 5), vec![("x", file("12345"))]),
    ]);
}

#[test]
fn unsafe_names_are_refused_and_odd_ones_restored() {
    let long_name = |name: &[u8]| tar().long(b'L', name).entry(b'0', "x", "1").end();
    let pax_name = |name: &[u8]| tar().pax(b'x', &[("path", name)]).entry(b'0', "x", "1").end();
    let prefixed = |prefix: &str| {
        tar()
            .header(&header(b'0', "x", 1).set(MAGIC, "ustar\x0000").set(PREFIX, prefix).seal())
            .content("1")
            .end()
    };
    let levels = |count: usize| "d/".repeat(count) + "x";
    let of_long_names = vec!["n".repeat(250); 17].join("/");
    all_refused(
        UNSAFE,
        vec![
            ("absolute", tar().file("/etc/evil", "1").end()),
            ("absolute, doubled", tar().file("//etc/evil", "1").end()),
            ("empty", tar().file("", "1").end()),
            ("empty by PAX", pax_name(b"")),
            ("empty by a long name", long_name(b"")),
            ("empty folder name", tar().header(&header(b'5', "", 0)).end()),
            ("the root of all", tar().header(&header(b'5', "/", 0)).end()),
            ("upwards", tar().file("../outside/secret", "1").end()),
            ("upwards itself", tar().dir("..").end()),
            ("upwards in the middle", tar().file("dir/../../outside/secret", "1").end()),
            ("upwards and back inside", tar().file("dir/../x", "1").end()),
            ("upwards at the end", tar().file("dir/..", "1").end()),
            ("upwards behind a dot", tar().file("./../x", "1").end()),
            ("upwards by PAX", pax_name(b"../x")),
            ("upwards by a long name", long_name(b"../x")),
            ("upwards by the prefix", prefixed("..")),
            ("absolute by the prefix", prefixed("/etc")),
            ("NUL by PAX", pax_name(b"a\0b")),
            ("NUL by a long name", long_name(b"a\0b")),
            ("NUL at the end by PAX", pax_name(b"a\0")),
            ("5,000 levels", tar().file(levels(5000), "1").end()),
            ("over 4,096 bytes", tar().file(&of_long_names, "1").end()),
            ("a name of 256 bytes", tar().file("n".repeat(256), "1").end()),
            ("a folder name of 256 bytes", tar().file("n".repeat(256) + "/x", "1").end()),
            (
                "a name that is too long and special",
                tar().long(b'L', "n".repeat(256)).entry(b'6', "x", "").end(),
            ),
        ],
    );
    all_refused(
        INVALID,
        vec![
            ("the workspace as a file", tar().file(".", "1").end()),
            ("the workspace as a link", tar().symlink("./", "/etc").end()),
            ("the workspace as a hard link", tar().hard_link(".", "keep").end()),
            ("the workspace as a FIFO", tar().entry(b'6', ".", "").end()),
        ],
    );
    all_restored(vec![
        ("dots", tar().file("./x", "1").file("./././y", "2").end(), vec![("x", file("1")), ("y", file("2"))]),
        ("doubled slashes", tar().file("dir//x", "1").end(), vec![("dir/x", file("1"))]),
        ("absolute only at a glance", tar().file(".//x", "1").end(), vec![("x", file("1"))]),
        (
            "dots that mean nothing",
            tar().file("...", "1").file("..x", "2").end(),
            vec![("...", file("1")), ("..x", file("2"))],
        ),
        ("newline", tar().file("a\nb", "1").end(), vec![("a\nb", file("1"))]),
        (
            "backslash",
            tar().file("..\\x", "1").file("c:\\y", "2").end(),
            vec![("..\\x", file("1")), ("c:\\y", file("2"))],
        ),
        (
            "what shells fear",
            tar().file("-rf $(x) `y` '\"*", "1").end(),
            vec![("-rf $(x) `y` '\"*", file("1"))],
        ),
        ("what terminals fear", tar().file("\x1b[2J\x07", "1").end(), vec![("\x1b[2J\x07", file("1"))]),
        ("a name of 255 bytes", tar().file("n".repeat(255), "1").end(), vec![(&"n".repeat(255), file("1"))]),
        ("a prefix", prefixed("dir"), vec![("dir/x", file("1"))]),
        ("a folder by its slash alone", tar().header(&header(b'0', "x/", 0)).end(), vec![("x", FOLDER_744)]),
        ("a folder that is only implied", tar().file("x/y", "1").end(), vec![("x", DIR), ("x/y", file("1"))]),
    ]);
}

/// A folder with the mode of the file in the archive above, and its owner's right to enter it.
const FOLDER_744: Node = Node::Folder(0o744);

#[test]
fn names_that_are_not_utf_8_are_restored() {
    let name = b"caf\xe9-\xff\xfe".to_vec();
    let mut expected = uploaded();
    expected.insert(name.clone(), file("1"));
    expected.insert(b"to".to_vec(), link(&name));
    restores_to("not UTF-8", tar().file(&name, "1").symlink("to", &name).end(), &expected);
}

#[test]
fn hundreds_of_levels_are_restored() {
    let path = vec!["d"; 300].join("/");
    let mut expected = uploaded();
    for level in 0..300 {
        expected.insert(path.as_bytes()[..=level * 2].to_vec(), DIR);
    }
    expected.insert(format!("{path}/x").into(), file("1"));
    restores_to("300 levels", tar().file(format!("{path}/x"), "1").end(), &expected);
}

#[test]
fn deep_names_do_not_grow_into_gigabytes() {
    // With 5 MB of archive, the names of its folders would take 4 GB.
    let deep = (0..1000).fold(tar(), |tar, at| tar.file(format!("{at}/{}x", "d/".repeat(1990)), ""));
    all_refused(INVALID, vec![("deep", deep.end())]);
    // Shared folders are created once.
    let prefix = "d/".repeat(1990);
    let shared = (0..1000).fold(tar(), |tar, at| tar.file(format!("{prefix}{at}/x"), ""));
    let unpacked = unpack(&shared.end(), None, &Filter::default()).unwrap();
    assert_eq!(unpacked.entries.len(), uploaded().len() + 1990 + 2000);
}

#[test]
fn of_two_entries_with_one_name_the_last_counts() {
    all_restored(vec![
        ("files", tar().file("x", "first").file("x", "second").end(), vec![("x", file("second"))]),
        (
            "the same by other spellings",
            tar().file("x", "first").file(".//x", "second").end(),
            vec![("x", file("second"))],
        ),
        ("a file after a folder", tar().dir("x").file("x", "1").end(), vec![("x", file("1"))]),
        (
            "a folder after a file",
            tar().file("x", "1").dir("x").file("x/y", "2").end(),
            vec![("x", DIR), ("x/y", file("2"))],
        ),
        (
            "a folder after a link to elsewhere",
            tar().symlink("x", "/etc").dir("x").file("x/y", "2").end(),
            vec![("x", DIR), ("x/y", file("2"))],
        ),
        ("a link after a file", tar().file("x", "1").symlink("x", "keep").end(), vec![("x", link("keep"))]),
        ("what was uploaded, twice", tar().file("keep", "1").file("keep", "keep").end(), vec![]),
        (
            "a hard link keeps what its target was then",
            tar().file("x", "first").hard_link("y", "x").file("x", "second").end(),
            vec![("x", file("second")), ("y", file("first"))],
        ),
    ]);
}

#[test]
fn an_entry_below_something_that_is_not_a_folder_is_refused() {
    all_refused(
        UNSAFE,
        vec![
            ("below a link", tar().symlink("x", "../outside").file("x/secret", "1").end()),
            ("below a link that is absolute", tar().symlink("x", "/etc").file("x/passwd", "1").end()),
            ("below a link that comes later", tar().file("x/secret", "1").symlink("x", "../outside").end()),
            (
                "below a link that replaces a folder",
                tar().dir("x").file("x/y", "1").symlink("x", "../outside").end(),
            ),
            ("below a link in a link", tar().symlink("x", ".").symlink("x/y", "../outside").end()),
            ("below an uploaded link", tar().file("link/y", "1").end()),
            ("below a file", tar().file("keep/y", "1").end()),
            ("deep below a file", tar().file("keep/a/b/c", "1").end()),
            ("below a FIFO", tar().entry(b'6', "x", "").file("x/y", "1").end()),
            ("below a hard link", tar().hard_link("x", "link").file("x/y", "1").end()),
            ("a folder below a link", tar().symlink("x", "../outside").dir("x/y").end()),
            (
                "below a link, beside names that sort between",
                tar().symlink("x", "../outside").file("x-", "1").file("x.y", "2").file("x/secret", "3").end(),
            ),
        ],
    );
}

#[test]
fn unsafe_links_are_refused() {
    all_refused(
        INVALID,
        vec![
            ("a link without a target", tar().symlink("x", "").end()),
            ("a target with a NUL", tar().pax(b'x', &[("linkpath", b"a\0b")]).symlink("x", "y").end()),
            ("a target that no file system holds", tar().symlink("x", "t".repeat(4096)).end()),
            ("a target of 5,000 levels", tar().symlink("x", "d/".repeat(5000)).end()),
            ("a hard link to a later entry", tar().hard_link("x", "y").file("y", "1").end()),
            ("a hard link to nothing", tar().hard_link("x", "y").end()),
            ("a hard link to itself", tar().hard_link("x", "x").end()),
            ("a hard link to a directory", tar().hard_link("x", "dir").end()),
            ("a hard link to the workspace", tar().hard_link("x", ".").end()),
            ("a hard link through a link", tar().symlink("s", "dir").hard_link("x", "s/inner").end()),
        ],
    );
    all_refused(
        UNSAFE,
        vec![
            ("a hard link to outside", tar().hard_link("x", "../outside/secret").end()),
            ("an absolute hard link", tar().hard_link("x", "/etc/passwd").end()),
            ("a hard link without a target", tar().hard_link("x", "").end()),
            (
                "a hard link to a NUL",
                tar().pax(b'x', &[("linkpath", b"keep\0")]).hard_link("x", "keep").end(),
            ),
            ("a hard link to upwards and back", tar().hard_link("x", "dir/../keep").end()),
        ],
    );
    all_restored(vec![
        ("a hard link", tar().hard_link("x", "keep").end(), vec![("x", file("keep"))]),
        ("a hard link with a dot", tar().hard_link("x", "./keep").end(), vec![("x", file("keep"))]),
        (
            "a hard link to a hard link",
            tar().hard_link("x", "keep").hard_link("y", "x").end(),
            vec![("x", file("keep")), ("y", file("keep"))],
        ),
        ("a hard link to a link", tar().hard_link("x", "link").end(), vec![("x", link("keep"))]),
        (
            "a hard link to an executable",
            tar().hard_link("x", "run").end(),
            vec![("x", Node::File(0o755, b"#!/bin/sh\n".to_vec()))],
        ),
        (
            "a hard link in place of an uploaded file",
            tar().hard_link("dir/inner", "keep").end(),
            vec![("dir/inner", file("keep"))],
        ),
        (
            "a link to outside stays a link",
            tar().symlink("x", "../outside/secret").end(),
            vec![("x", link("../outside/secret"))],
        ),
        ("a dangling link", tar().symlink("x", "nowhere").end(), vec![("x", link("nowhere"))]),
        ("a link to itself", tar().symlink("x", "x").end(), vec![("x", link("x"))]),
        ("a long target", tar().symlink("x", "t/".repeat(2000)).end(), vec![("x", link("t/".repeat(2000)))]),
        (
            "a link in place of a folder",
            tar().symlink("gone", "../outside/folder").end(),
            vec![("gone", link("../outside/folder"))],
        ),
    ]);
}

#[test]
fn malformed_pax_records_are_refused() {
    let records = |bytes: &[u8]| tar().entry(b'x', "PaxHeaders/x", bytes).file("x", "1").end();
    all_refused(
        INVALID,
        vec![
            ("no length", records(b"path=y\n")),
            ("a length that is too short", records(b"8 path=y\n")),
            ("a length that is too long", records(b"99 path=y\n")),
            ("a length that reaches into the padding", records(b"11 path=y\n")),
            ("a length of nothing", records(b"0 path=y\n")),
            ("a length that ends in itself", records(b"1 path=y\n")),
            ("a negative length", records(b"-9 path=y\n")),
            ("a padded length", records(b"09 path=y\n")),
            ("a huge length", records(b"99999999999999999999 path=y\n")),
            ("no line end", records(b"9 path=yz")),
            ("no equals sign", records(b"7 path\n")),
            ("no key", records(b"6 =xy\n")),
            ("NULs after the records", records(b"9 path=y\n\0\0\0")),
            ("a second record that is cut", records(b"9 path=y\n20 comment=")),
            (
                "two headers",
                tar().pax(b'x', &[("path", b"a")]).pax(b'x', &[("path", b"b")]).file("x", "1").end(),
            ),
            (
                "a name by PAX and by a long name",
                tar().pax(b'x', &[("path", b"a")]).long(b'L', "b").file("x", "1").end(),
            ),
            ("a PAX header and nothing", tar().pax(b'x', &[("path", b"a")]).end()),
            ("a global name", tar().pax(b'g', &[("path", b"a")]).file("x", "1").end()),
            ("a global target", tar().pax(b'g', &[("linkpath", b"a")]).file("x", "1").end()),
            ("a global size", tar().pax(b'g', &[("size", b"1")]).file("x", "1").end()),
            ("malformed global records", tar().entry(b'g', "g", "path=y\n").file("x", "1").end()),
        ],
    );
    all_refused(
        TRUNCATED,
        vec![
            ("a PAX header at the end of the bytes", tar().pax(b'x', &[("path", b"a")]).cut()),
            ("records that are cut off", tar().header(&header(b'x', "p", 5000)).content("9 path=y\n").end()),
        ],
    );
    let long = "p/".repeat(100) + "x";
    let mut expected = uploaded();
    for level in 1..=100 {
        expected.insert(long.as_bytes()[..level * 2 - 1].to_vec(), DIR);
    }
    expected.insert(long.clone().into_bytes(), file("1"));
    restores_to(
        "a long PAX name",
        tar().pax(b'x', &[("path", long.as_bytes())]).file("x", "1").end(),
        &expected,
    );
    all_restored(vec![
        ("a name", tar().pax(b'x', &[("path", b"a=b\nc")]).file("x", "1").end(), vec![("a=b\nc", file("1"))]),
        (
            "a name, twice",
            records(&[pax_record("path", b"a"), pax_record("path", b"b")].concat()),
            vec![("b", file("1"))],
        ),
        (
            "a target",
            tar().pax(b'x', &[("linkpath", b"dir")]).symlink("x", "y").end(),
            vec![("x", link("dir"))],
        ),
        (
            "a hard link's target",
            tar().pax(b'x', &[("linkpath", b"keep")]).hard_link("x", "y").end(),
            vec![("x", file("keep"))],
        ),
        ("an empty header", tar().pax(b'x', &[]).file("x", "1").end(), vec![("x", file("1"))]),
        (
            "a name holds for one entry",
            tar().pax(b'x', &[("path", b"a")]).file("x", "1").file("y", "2").end(),
            vec![("a", file("1")), ("y", file("2"))],
        ),
        (
            "what is not restored",
            tar()
                .pax(b'g', &[("comment", b"by git"), ("mtime", b"-1.5")])
                .pax(
                    b'x',
                    &[
                        ("mtime", b"1e9"),
                        ("uid", b"0"),
                        ("uname", b"root"),
                        ("SCHILY.xattr.security.capability", b"\x01\0\0\x02"),
                        ("LIBARCHIVE.xattr.user.x", b"=\n"),
                    ],
                )
                .file("x", "1")
                .end(),
            vec![("x", file("1"))],
        ),
    ]);
}

#[test]
fn contradicting_long_names_are_refused() {
    all_refused(
        INVALID,
        vec![
            ("a long name and nothing", tar().long(b'L', "n").end()),
            ("a long target and nothing", tar().long(b'K', "n").end()),
            ("two long names", tar().long(b'L', "a").long(b'L', "b").file("x", "1").end()),
            ("two long targets", tar().long(b'K', "a").long(b'K', "b").symlink("x", "1").end()),
        ],
    );
    all_refused(
        TRUNCATED,
        vec![
            ("a long name at the end of the bytes", tar().long(b'L', "n").cut()),
            (
                "a long name that is cut off",
                tar().header(&header(b'L', "././@LongLink", 5000)).content("n").end(),
            ),
            ("a huge long name", tar().header(&header(b'L', "x", 0).set(SIZE, "77777777777\0").seal()).end()),
        ],
    );
    all_restored(vec![
        (
            "a long name for a folder",
            tar().long(b'L', "a/").header(&header(b'5', "x", 0)).end(),
            vec![("a", FOLDER_744_BY_HEADER)],
        ),
        ("a long target for a file", tar().long(b'K', "keep").file("x", "1").end(), vec![("x", file("1"))]),
        ("both", tar().long(b'K', "keep").long(b'L', "a").symlink("x", "y").end(), vec![("a", link("keep"))]),
        (
            "both the other way round",
            tar().long(b'L', "a").long(b'K', "keep").symlink("x", "y").end(),
            vec![("a", link("keep"))],
        ),
        (
            "a comment between",
            tar().long(b'L', "a").pax(b'g', &[("comment", b"c")]).file("x", "1").end(),
            vec![("a", file("1"))],
        ),
        (
            "no NUL at its end",
            tar().entry(b'L', "././@LongLink", "a").file("x", "1").end(),
            vec![("a", file("1"))],
        ),
        (
            "a name holds for one entry",
            tar().long(b'L', "a").file("x", "1").file("y", "2").end(),
            vec![("a", file("1")), ("y", file("2"))],
        ),
    ]);
}

/// The mode that [`Header::new`] gives a folder.
const FOLDER_744_BY_HEADER: Node = DIR;

#[test]
fn sparse_and_unknown_entries_are_refused() {
    let kinds = b"SMAXNZabc89\x01\x7f\xff ".iter();
    let titles: Vec<_> =
        kinds.map(|&kind| (kind, format!("an entry of type {:?}", char::from(kind)))).collect();
    let mut archives: Vec<_> = titles
        .iter()
        .flat_map(|(kind, title)| {
            let empty = tar().header(&header(*kind, "x", 0)).end();
            let full = tar().entry(*kind, "x", "12345").end();
            [(title.as_str(), empty), (title.as_str(), full)]
        })
        .collect();
    let sparse = |records: &[(&str, &[u8])]| tar().pax(b'x', records).file("x", "12345").end();
    archives.extend([
        ("PAX sparse 0.0", sparse(&[("GNU.sparse.size", b"9"), ("GNU.sparse.numblocks", b"1")])),
        ("PAX sparse 0.1", sparse(&[("GNU.sparse.map", b"0,5")])),
        ("PAX sparse 1.0", sparse(&[("GNU.sparse.major", b"1"), ("GNU.sparse.name", b"../x")])),
    ]);
    all_refused(INVALID, archives);
    all_restored(vec![
        ("a contiguous file", tar().entry(b'7', "x", "1").end(), vec![("x", file("1"))]),
        ("a file of the oldest kind", tar().entry(0, "x", "1").end(), vec![("x", file("1"))]),
    ]);
}

#[test]
fn entries_that_only_gnu_tar_writes_are_handled() {
    let dump = b"Yfile\0Ndir\0\0";
    all_restored(vec![
        ("a label", tar().entry(b'V', "/a label/../of any kind", "").end(), vec![]),
        (
            "a label at the front",
            [&RawTar::new().entry(b'V', "v", "").cut(), &tar().end()[..]].concat(),
            vec![],
        ),
        (
            "a label with content",
            tar().entry(b'V', "v", "12345").file("x", "1").end(),
            vec![("x", file("1"))],
        ),
        ("a label without a name", tar().entry(b'V', "", "").end(), vec![]),
        (
            "a folder with its names",
            tar().entry(b'D', "x/", dump).file("x/file", "1").end(),
            vec![("x", FOLDER_744), ("x/file", file("1"))],
        ),
        ("a folder with no names", tar().entry(b'D', "x/", "").end(), vec![("x", FOLDER_744)]),
    ]);
    all_refused(UNSAFE, vec![("a folder with names elsewhere", tar().entry(b'D', "../x", dump).end())]);
    all_refused(
        TRUNCATED,
        vec![
            ("a label that is cut off", tar().header(&header(b'V', "v", 5000)).end()),
            ("a folder's names that are cut off", tar().header(&header(b'D', "x/", 5000)).end()),
        ],
    );
    // A label is not an entry: an archive with nothing else is empty.
    let place = Place::with(&uploaded());
    let (client, session) = place.prepare_canned();
    client.answer_unmarked(RawTar::new().entry(b'V', "v", "").end());
    assert_eq!(refused(&session, &*client).code(), INVALID);
}

#[test]
fn a_refusal_names_its_entry() {
    let bad = |field: std::ops::Range<usize>| header(b'0', "dir/culprit", 0).set(field, "x".repeat(7)).seal();
    let long = "n".repeat(150);
    let place = Place::with(&uploaded());
    let (client, session) = place.prepare_canned();
    for (title, archive, named) in [
        ("size", tar().header(&bad(SIZE)).end(), "dir/culprit"),
        ("mode", tar().header(&bad(MODE)).end(), "dir/culprit"),
        ("long name", tar().long(b'L', &long).header(&bad(SIZE)).end(), &long),
        ("kind", tar().entry(b'N', "dir/culprit", "").end(), "dir/culprit"),
        ("size of a link", tar().entry(b'2', "dir/culprit", "12345").end(), "dir/culprit"),
    ] {
        client.answer(archive);
        let error = refused(&session, &*client);
        let Error::ArchiveInvalid { entry: Some(entry), .. } = &error else { panic!("{title}: {error:?}") };
        assert_eq!(entry, named, "{title}");
        assert!(error.to_string().contains(&format!(", entry \"{named}\": ")), "{title}: {error}");
    }
}

/// Everything from an archive that may appear in an error, at any length.
#[test]
fn text_from_an_archive_is_shortened_and_escaped_in_errors() {
    let place = Place::with(&uploaded());
    let (client, session) = place.prepare_canned();
    for piece in [&b"\xff"[..], b"n", b"\x1b[2J\n", "\u{202e}\u{1f980}".as_bytes(), b"d/"] {
        for length in [300, 5000, 70_000, 20 << 20] {
            if length > 1 << 20 && piece != b"\xff" {
                continue;
            }
            let text = piece.repeat(length / piece.len());
            let short = &text[..piece.len() * 20];
            let pax = |key: &str| tar().pax(b'x', &[(key, &text)]);
            for (title, archive) in [
                ("long name", tar().long(b'L', &text).file("x", "1").end()),
                ("long target", tar().long(b'K', &text).symlink("x", "y").end()),
                ("long hard link", tar().long(b'K', &text).hard_link("x", "y").end()),
                ("upwards", tar().long(b'L', [&b"../"[..], &text].concat()).file("x", "1").end()),
                ("below a file", tar().long(b'L', [&b"keep/"[..], short].concat()).file("x", "1").end()),
                ("PAX name", pax("path").file("x", "1").end()),
                ("PAX target", pax("linkpath").hard_link("x", "y").end()),
                ("PAX size", pax("size").file("x", "1").end()),
                ("a key", tar().entry(b'x', "p", [&b"99 "[..], &text].concat()).file("x", "1").end()),
                ("no file", tar().header(&Header::new(b'N', &text, 0)).end()),
            ] {
                client.answer(archive);
                // A link may have a target that does not exist.
                let Err(error) = restore(&session, &*client) else { continue };
                let RunError::Own(error) = error else { panic!("{title}: {error:?}") };
                let message = error.to_string();
                assert!(message.chars().count() < 1000, "{title}: {}", message.len());
                assert!(
                    !message.chars().any(|char| char.is_control() || char == '\u{202e}'),
                    "{title}: {message}"
                );
                let (Error::ArchiveInvalid { entry: Some(property), .. }
                | Error::UnsafePath { path: property, .. }) = &error
                else {
                    continue;
                };
                assert!(property.chars().count() <= 201, "{title}: {}", property.len());
                assert!(!property.chars().any(char::is_control), "{title}: {property}");
            }
        }
    }
}

#[test]
fn ignored_records_may_be_long() {
    let large = vec![b'a'; 3 << 20];
    let many: Vec<u8> = pax_record("comment", b"c").repeat(200_000);
    all_restored(vec![
        (
            "one long record",
            tar().pax(b'x', &[("SCHILY.xattr.user.x", &large), ("path", b"a")]).file("x", "1").end(),
            vec![("a", file("1"))],
        ),
        (
            "many records",
            tar().entry(b'x', "p", [&many[..], &pax_record("path", b"a")].concat()).file("x", "1").end(),
            vec![("a", file("1"))],
        ),
        (
            "a long global record",
            tar().pax(b'g', &[("comment", &large)]).file("x", "1").end(),
            vec![("x", file("1"))],
        ),
    ]);
    let cut = [&large[..], b"no line end"].concat();
    all_refused(
        INVALID,
        vec![(
            "a long record without an end",
            tar()
                .entry(b'x', "p", [format!("{} comment=", cut.len() + 16).as_bytes(), &cut].concat())
                .file("x", "1")
                .end(),
        )],
    );
}

#[test]
fn the_control_file_is_not_part_of_the_tree() {
    let path = |text: &str| RelativePath::parse(text.as_bytes()).unwrap().unwrap();
    let control = path(".paperclip-runtime/attack/control");
    let name = control.to_string();
    let unpacked = |archive: RawTar| {
        let ignored = Filter::by_name(|path| path.is_or_below(b".paperclip-runtime"));
        unpack(&archive.end(), Some(&control), &ignored)
    };
    let large = "x".repeat(3 << 20);
    for (title, archive, expected) in [
        ("none", tar(), None),
        ("a file", tar().file(&name, "told"), Some("told")),
        (
            "by another spelling",
            tar().file(format!("./.paperclip-runtime//{}", &name[19..]), "told"),
            Some("told"),
        ),
        ("an empty one", tar().file(&name, ""), Some("")),
        ("a large one", tar().file(&name, &large), Some(&*large)),
        ("the last of two", tar().file(&name, "first").file(&name, "told"), Some("told")),
        ("a folder", tar().dir(&name), None),
        ("a link", tar().symlink(&name, "../../keep"), None),
        ("a device", tar().entry(b'3', &name, ""), None),
        ("a further name, whose content has passed", tar().hard_link(&name, "keep"), None),
        ("one that became a further name", tar().file(&name, "told").hard_link(&name, "keep"), None),
        ("one that is not the last", tar().file(&name, "told").dir(&name), None),
        ("another", tar().file(format!("{name}2"), "told"), None),
        ("one above", tar().file(".paperclip-runtime/attack", "told"), None),
        ("elsewhere", tar().file(format!("dir/{name}"), "told"), None),
    ] {
        let archive = unpacked(archive).unwrap_or_else(|error| panic!("{title}: {error}"));
        assert_eq!(archive.control.as_deref(), expected.map(str::as_bytes), "{title}");
        assert!(archive.get(&control).is_none(), "{title}");
        assert!(archive.get(&path("keep")).is_some(), "{title}");
    }
    let limit = usize::try_from(CONTROL_MAX).unwrap();
    assert_eq!(unpacked(tar().file(&name, vec![0; limit])).unwrap().control.unwrap().len(), limit);
    let error = unpacked(tar().file(&name, vec![0; limit + 1])).unwrap_err();
    assert_eq!(error.code(), INVALID, "{error}");
    assert!(error.to_string().contains(&name), "{error}");
}

#[test]
fn devices_and_fifos_are_left_out() {
    let tar = || to_tar(&uploaded().into_iter().filter(|(path, _)| path != b"keep").collect());
    for kind in [b'3', b'4', b'6'] {
        let place = Place::with(&uploaded());
        let (client, session) = place.prepare_canned();
        client.answer(tar().entry(kind, "keep", "").entry(kind, "new", "").file("x", "1").end());
        let report = restore(&session, &*client).unwrap();
        let mut expected = uploaded();
        expected.insert(b"x".to_vec(), file("1"));
        assert_same(&place.tree(), &expected, "devices");
        let skipped: Vec<_> = report.skipped.iter().map(|skipped| skipped.path.to_string()).collect();
        assert_eq!(skipped, ["keep", "new"]);
        assert!(report.deleted.is_empty() && report.left_in_place.is_empty() && report.conflicts.is_empty());
    }
}

#[test]
fn a_folder_that_became_a_device_stays_with_its_content() {
    let rest = to_tar(&uploaded().into_iter().filter(|(path, _)| !path.starts_with(b"dir")).collect());
    restores_to("a device in place of a folder", rest.entry(b'3', "dir", "").end(), &uploaded());
}

#[test]
fn no_privileges_are_restored() {
    for mode in [0o4755, 0o2755, 0o1755, 0o7755, 0o177_755] {
        let archive = tar().file_with_mode("x", mode, "1").dir_with_mode("d", mode).end();
        let expected = vec![("x", Node::File(0o755, b"1".to_vec())), ("d", DIR)];
        all_restored(vec![("privileges", archive, expected)]);
    }
    // Nor are the bits removed that were set locally.
    let place = Place::with(&uploaded());
    set_mode(&place.at("dir"), 0o2755);
    let (client, session) = place.prepare_canned();
    client.answer(tar().dir_with_mode("dir", 0o700).end());
    restore(&session, &*client).unwrap();
    assert_eq!(place.tree()[&b"dir"[..]], Node::Folder(0o2700));
}

#[test]
fn an_archive_needs_its_end_mark_and_nothing_behind_it_counts() {
    let lone = tar().bytes([0; BLOCK]).file("x", "1").end();
    all_refused(INVALID, vec![("a lone block of zeros before an entry", lone)]);
    all_refused(
        TRUNCATED,
        vec![
            ("nothing", Vec::new()),
            ("no end mark", tar().cut()),
            ("a lone block of zeros at the end", tar().bytes([0; BLOCK]).cut()),
            ("an end mark that lacks a byte", tar().bytes([0; 2 * BLOCK - 1]).cut()),
            ("one block of zeros", vec![0; BLOCK]),
            ("a part of a block", vec![0; 100]),
        ],
    );
    let after = |bytes: &[u8]| [&tar().end()[..], bytes].concat();
    all_restored(vec![
        ("an archive after the end mark", after(&RawTar::new().file("x", "1").end()), vec![]),
        ("rubbish after the end mark", after(&[b'#'; 700]), vec![]),
        ("zeros after the end mark", after(&[0; 10_000]), vec![]),
    ]);
}

#[test]
fn an_archive_without_any_entry_is_not_an_emptied_workspace() {
    let place = Place::with(&uploaded());
    let before = Picture::of(&place.workspace());
    let (client, session) = place.prepare_canned();
    for archive in [RawTar::new().end(), vec![0; 10_240], RawTar::new().pax(b'g', &[("comment", b"x")]).end()]
    {
        client.answer_unmarked(archive);
        let error = refused(&session, &*client);
        assert_eq!(error.code(), INVALID, "{error}");
        assert_eq!(Picture::of(&place.workspace()), before);
    }
}

#[test]
fn an_emptied_workspace_is_emptied_locally() {
    let place = Place::with(&uploaded());
    let mut upload = place.upload();
    upload.exclude = vec![b"*.log".to_vec()];
    std::fs::write(place.at("dir/x.log"), "never uploaded").unwrap();
    let client = std::sync::Arc::new(crate::sandbox::CannedSandbox::default());
    let session = crate::place::prepare_upload(&client, upload).unwrap();
    client.answer(RawTar::new().dir(".").end());
    let report = restore(&session, &*client).unwrap();
    let expected = tree([("dir", DIR), ("dir/x.log", file("never uploaded"))]);
    assert_same(&place.tree(), &expected, "emptied");
    assert_eq!(report.deleted.len(), 4);

    // Once empty, it may come back as an empty archive, even without any bytes, as some tars write it.
    for nothing in [RawTar::new().end(), Vec::new()] {
        client.answer_unmarked(nothing);
        restore(&session, &*client).unwrap();
        assert_same(&place.tree(), &expected, "still empty");
    }
    client.answer_unmarked([0]);
    assert_eq!(refused(&session, &*client).code(), TRUNCATED, "but not as some bytes");
}

#[test]
fn our_own_folder_is_not_restored_from_the_sandbox() {
    all_restored(vec![
        ("files", tar().dir(".paperclip-runtime").file(".paperclip-runtime/x/y", "1").end(), vec![]),
        ("a link", tar().symlink(".paperclip-runtime", "../outside").end(), vec![]),
        (
            "a link and below it",
            tar().symlink("./.paperclip-runtime", "../outside").file(".paperclip-runtime/secret", "1").end(),
            vec![],
        ),
        ("a device", tar().entry(b'3', ".paperclip-runtime", "").end(), vec![]),
        (
            "one that is not ours",
            tar().dir("dir/.paperclip-runtime").end(),
            vec![("dir/.paperclip-runtime", DIR)],
        ),
        (
            "one that only begins like it",
            tar().file(".paperclip-runtime2", "1").end(),
            vec![(".paperclip-runtime2", file("1"))],
        ),
    ]);
}

#[test]
fn a_file_outside_cannot_be_reached_by_a_hard_link() {
    let place = Place::with(&uploaded());
    let (client, session) = place.prepare_canned();
    for target in ["../outside/secret", "/../outside/secret", "./../outside/secret"] {
        client.answer(tar().hard_link("x", target).end());
        refused(&session, &*client);
        client.answer(tar().symlink("s", target).hard_link("x", "s").end());
        restore(&session, &*client).unwrap();
        let found = place.tree();
        assert_eq!(found[&b"x"[..]], link(target), "the link itself and not what it points to");
        assert!(!found.values().any(|node| *node == file(SECRET)));
    }
}

#[test]
fn every_entry_type_is_known_or_refused() {
    let place = Place::with(&uploaded());
    let (client, session) = place.prepare_canned();
    let before = place.tree();
    for kind in 0..=u8::MAX {
        client.answer(tar().header(&header(b'0', "x", 0).set(KIND..KIND + 1, [kind]).seal()).end());
        // A volume label is skipped.
        let known = b"\x0001234567DV".contains(&kind);
        let outcome = restore(&session, &*client);
        match kind {
            // A hard or symbolic link without a target.
            b'1' | b'2' => assert!(outcome.is_err(), "{kind}"),
            // A global header without content.
            b'g' => assert!(outcome.is_ok(), "{outcome:?}"),
            _ => assert_eq!(outcome.is_ok(), known, "{kind}: {outcome:?}"),
        }
        client.answer(tar().end());
        restore(&session, &*client).unwrap();
        assert_same(&place.tree(), &before, "afterwards");
    }
}
