//! A tar writer that writes anything, including what no tar program would write.

/// The size of a block. Everything in an archive fills whole blocks.
pub const BLOCK: usize = 512;

/// One header block. Its fields are set as bytes, valid or not.
pub struct Header([u8; BLOCK]);

/// The position of a field in a header.
pub type Field = std::ops::Range<usize>;
/// The name.
pub const NAME: Field = 0..100;
/// The permission bits.
pub const MODE: Field = 100..108;
/// The size of the content.
pub const SIZE: Field = 124..136;
/// The checksum.
pub const CHECKSUM: Field = 148..156;
/// The entry type.
pub const KIND: usize = 156;
/// The link target.
pub const LINK: Field = 157..257;
/// The magic of the format.
pub const MAGIC: Field = 257..265;
/// The prefix of the name in POSIX archives.
pub const PREFIX: Field = 345..500;

impl Header {
    /// A well-formed header for an entry of that type and size. Its name is cut at 100 bytes.
    pub fn new(kind: u8, name: impl AsRef<[u8]>, size: usize) -> Self {
        Self([0; BLOCK])
            .set(NAME, name)
            .set(MODE, if kind == b'5' { "0000755\0" } else { "0000644\0" })
            .set(108..116, "0000000\0")
            .set(116..124, "0000000\0")
            .set(SIZE, format!("{size:011o}\0"))
            .set(136..148, "00000000000\0")
            .set(KIND..KIND + 1, [kind])
            .set(MAGIC, "ustar  \0")
            .seal()
    }

    /// Writes bytes into a field, followed by zeros. The checksum is not updated.
    pub fn set(mut self, field: Field, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        let length = bytes.len().min(field.len());
        self.0[field.clone()].fill(0);
        self.0[field][..length].copy_from_slice(&bytes[..length]);
        self
    }

    /// Updates the checksum.
    pub fn seal(self) -> Self {
        let spaces = self.set(CHECKSUM, " ".repeat(8));
        let sum: u32 = spaces.0.iter().map(|&byte| u32::from(byte)).sum();
        spaces.set(CHECKSUM, format!("{sum:06o}\0 "))
    }
}

/// An archive being written.
#[derive(Clone, Default)]
pub struct RawTar(Vec<u8>);

impl RawTar {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes as they are.
    pub fn bytes(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    /// Appends a header as it is.
    pub fn header(self, header: &Header) -> Self {
        self.bytes(header.0)
    }

    /// Appends content with its padding.
    pub fn content(self, bytes: impl AsRef<[u8]>) -> Self {
        let mut tar = self.bytes(bytes);
        tar.0.resize(tar.0.len().next_multiple_of(BLOCK), 0);
        tar
    }

    /// Appends a header with a correct checksum, and its content.
    pub fn entry(self, kind: u8, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        self.header(&Header::new(kind, name, content.len())).content(content)
    }

    /// Appends a file. A long name gets a long-name entry.
    pub fn file(self, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        self.named(&name).entry(b'0', name, content)
    }

    /// Appends a file with that mode.
    pub fn file_with_mode(self, name: impl AsRef<[u8]>, mode: u32, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        let header = Header::new(b'0', &name, content.len()).set(MODE, format!("{mode:07o}\0")).seal();
        self.named(&name).header(&header).content(content)
    }

    /// Appends a folder.
    pub fn dir(self, name: impl AsRef<[u8]>) -> Self {
        self.dir_with_mode(name, 0o755)
    }

    /// Appends a folder with that mode.
    pub fn dir_with_mode(self, name: impl AsRef<[u8]>, mode: u32) -> Self {
        let name = [name.as_ref(), b"/"].concat();
        let header = Header::new(b'5', &name, 0).set(MODE, format!("{mode:07o}\0")).seal();
        self.named(&name).header(&header)
    }

    /// Appends a symbolic link.
    pub fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.link(b'2', name, target)
    }

    /// Appends a hard link to an earlier file.
    pub fn hard_link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.link(b'1', name, target)
    }

    fn link(self, kind: u8, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        let target = target.as_ref();
        let tar = if target.len() > 100 { self.long(b'K', target) } else { self };
        tar.named(&name).header(&Header::new(kind, name, 0).set(LINK, target).seal())
    }

    fn named(self, name: impl AsRef<[u8]>) -> Self {
        if name.as_ref().len() > 100 { self.long(b'L', name) } else { self }
    }

    /// Appends a long name (`L`) or a long link target (`K`) for the next entry.
    pub fn long(self, kind: u8, name: impl AsRef<[u8]>) -> Self {
        self.entry(kind, "././@LongLink", [name.as_ref(), b"\0"].concat())
    }

    /// Appends PAX records for the next entry (`x`), or for all (`g`).
    pub fn pax(self, kind: u8, records: &[(&str, &[u8])]) -> Self {
        let records: Vec<u8> = records.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
        self.entry(kind, "PaxHeaders/x", records)
    }

    /// The archive without an end-of-archive mark.
    pub fn cut(self) -> Vec<u8> {
        self.0
    }

    /// The archive with its end-of-archive mark.
    pub fn end(self) -> Vec<u8> {
        self.bytes([0; 2 * BLOCK]).0
    }
}

/// A PAX record, with a length that includes itself.
pub fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let digits = (1..9).find(|digits| (rest.len() + digits).to_string().len() == *digits).unwrap();
    let length = rest.len() + digits;
    [length.to_string().as_bytes(), &rest].concat()
}
