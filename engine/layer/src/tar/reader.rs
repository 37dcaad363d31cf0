//! Archive → entries, bounded against hostile input.

use std::io::{self, Read};

use super::{BLOCK, Entry, Kind, padding, pax};
use crate::{Error, Limits};

mod sparse;

/// Reads entries one after the other; between two calls of [`Reader::next_entry`] it reads the data of the last one.
pub(crate) struct Reader<R> {
    inner: R,
    limits: Limits,
    offset: u64,
    /// Data of the current entry that is still in the stream, and the padding behind it.
    remaining: u64,
    padding: usize,
    entries: u64,
    ended: bool,
}

/// What the headers in front of an entry said about it.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    size: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: sparse::Pax,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(inner: R, limits: Limits) -> Self {
        Self {
            inner,
            limits,
            offset: 0,
            remaining: 0,
            padding: 0,
            entries: 0,
            ended: false,
        }
    }

    pub(crate) fn bad<T>(&self, reason: impl Into<String>) -> Result<T, Error> {
        Err(Error::Archive {
            reason: reason.into(),
            offset: self.offset,
        })
    }

    /// The next entry, or `None` at the end of the archive; then the stream was read to its end too, so that its digest
    /// is complete.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        let mut extended = Extended::default();
        let mut some_extended = false;
        loop {
            self.skip_data()?;
            let Some(header) = self.header()? else {
                if some_extended {
                    return self.bad("an extended header without an entry behind it");
                }
                return Ok(None);
            };
            self.entries += 1;
            if self.entries > self.limits.entries {
                return self.bad(format!("more than {} entries", self.limits.entries));
            }
            let size = self.number(&header[124..136], "size")?;
            match header[156] {
                b'x' | b'X' => {
                    let data = self.extension(size)?;
                    self.parse_pax(&data, &mut extended)?;
                    some_extended = true;
                }
                b'L' => {
                    extended.path = Some(until_nul(&self.extension(size)?).to_vec());
                    some_extended = true;
                }
                b'K' => {
                    extended.link = Some(until_nul(&self.extension(size)?).to_vec());
                    some_extended = true;
                }
                // `V` is a volume label of GNU tar: no file. `g` are defaults for all that follows: nothing that writes
                // images uses them for more than a comment, and the readers that images are made for (Go's) do not apply
                // them.
                b'V' | b'g' => self.expect(size)?,
                flag => return self.entry(&header, flag, size, extended).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        header: &[u8; BLOCK],
        flag: u8,
        size: u64,
        extended: Extended,
    ) -> Result<Entry, Error> {
        let path = match (extended.sparse.name(), extended.path) {
            (Some(name), _) => name.to_vec(),
            (None, Some(path)) => path,
            (None, None) => name_and_prefix(header),
        };
        let kind = match flag {
            // Before POSIX a directory was a file with a slash at its end.
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                return self.bad(format!(
                    "unknown entry type {:?} for {}",
                    char::from(other),
                    String::from_utf8_lossy(&path)
                ));
            }
        };
        let link = extended
            .link
            .unwrap_or_else(|| until_nul(&header[157..257]).to_vec());
        for (what, value) in [("name", &path), ("link target", &link)] {
            if value.len() > self.limits.name {
                return self.bad(format!(
                    "a {what} of {} bytes; {} are allowed",
                    value.len(),
                    self.limits.name
                ));
            }
            if value.contains(&0) {
                return self.bad(format!("a {what} with a NUL byte in it"));
            }
        }
        let mut entry = Entry::new(path, kind);
        entry.link = link;
        entry.mode = (self.number(&header[100..108], "mode")? & 0o7777) as u32;
        entry.uid = extended
            .uid
            .map_or_else(|| self.number(&header[108..116], "uid"), Ok)?;
        entry.gid = extended
            .gid
            .map_or_else(|| self.number(&header[116..124], "gid"), Ok)?;
        entry.mtime = match extended.mtime {
            Some(mtime) => mtime,
            None => (self.signed(&header[136..148], "mtime")?, 0),
        };
        if matches!(kind, Kind::Char | Kind::Block) {
            entry.device = (
                self.number(&header[329..337], "device major")? as u32,
                self.number(&header[337..345], "device minor")? as u32,
            );
        }
        entry.xattrs = extended.xattrs;
        entry.xattrs.sort();
        // Everything but a file is a header alone, whatever its size field says.
        if kind == Kind::File {
            let stored = extended.size.unwrap_or(size);
            self.expect(stored)?;
            entry.size = stored;
            if flag == b'S' {
                self.old_gnu_sparse(header, &mut entry)?;
            } else {
                self.pax_sparse(&extended.sparse, &mut entry)?;
            }
        }
        Ok(entry)
    }

    fn parse_pax(&self, data: &[u8], extended: &mut Extended) -> Result<(), Error> {
        let Some(records) = pax::records(data) else {
            return self.bad("a malformed PAX header");
        };
        for (key, value) in records {
            let malformed = || Error::Archive {
                reason: format!(
                    "PAX record {:?} has the value {:?}",
                    String::from_utf8_lossy(key),
                    String::from_utf8_lossy(&value[..value.len().min(100)])
                ),
                offset: self.offset,
            };
            let text = || (!value.is_empty()).then(|| value.to_vec());
            let number = || {
                if value.is_empty() {
                    Ok(None)
                } else {
                    pax::decimal(value).map(Some).ok_or_else(malformed)
                }
            };
            match key {
                b"path" => extended.path = text(),
                b"linkpath" => extended.link = text(),
                b"uid" => extended.uid = number()?,
                b"gid" => extended.gid = number()?,
                b"size" => extended.size = number()?,
                b"mtime" if value.is_empty() => extended.mtime = None,
                b"mtime" => extended.mtime = Some(pax::time(value).ok_or_else(malformed)?),
                _ if key.starts_with(b"SCHILY.xattr.") => {
                    let name = &key[b"SCHILY.xattr.".len()..];
                    if name.is_empty() || name.contains(&0) {
                        return Err(malformed());
                    }
                    extended.xattrs.retain(|(known, _)| known != name);
                    extended.xattrs.push((name.to_vec(), value.to_vec()));
                }
                _ if key.starts_with(b"GNU.sparse.") => {
                    extended
                        .sparse
                        .record(&key[b"GNU.sparse.".len()..], value)
                        .ok_or_else(malformed)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The content of an extended header, which must fit into memory.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > self.limits.header {
            return self.bad(format!(
                "an extended header of {size} bytes; {} are allowed",
                self.limits.header
            ));
        }
        self.expect(size)?;
        let mut data = vec![0; size as usize];
        self.read_exact_data(&mut data)?;
        Ok(data)
    }

    fn expect(&mut self, size: u64) -> Result<(), Error> {
        if size > self.limits.uncompressed {
            return self.bad(format!(
                "an entry of {size} bytes; {} are allowed",
                self.limits.uncompressed
            ));
        }
        self.remaining = size;
        self.padding = padding(size);
        Ok(())
    }

    fn skip_data(&mut self) -> Result<(), Error> {
        let skip = self.remaining + self.padding as u64;
        let skipped =
            io::copy(&mut self.inner.by_ref().take(skip), &mut io::sink()).map_err(Error::Source)?;
        self.offset += skipped;
        // The padding of the last entry may be missing: seen in archives of embedded writers, and Go reads them.
        if skipped < self.remaining {
            return self.bad("the archive ends in the middle of a file");
        }
        self.remaining = 0;
        self.padding = 0;
        Ok(())
    }

    /// Reads data of the current entry; 0 at its end.
    pub(crate) fn read_data(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let n = buf
            .len()
            .min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        if n == 0 {
            return Ok(0);
        }
        loop {
            match self.inner.read(&mut buf[..n]) {
                Ok(0) => return self.bad("the archive ends in the middle of a file"),
                Ok(n) => {
                    self.remaining -= n as u64;
                    self.offset += n as u64;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Source(error)),
            }
        }
    }

    fn read_exact_data(&mut self, mut buf: &mut [u8]) -> Result<(), Error> {
        while !buf.is_empty() {
            let n = self.read_data(buf)?;
            if n == 0 {
                return self.bad("an entry that is shorter than its own description");
            }
            buf = &mut buf[n..];
        }
        Ok(())
    }

    /// A header block whose checksum is right, or `None` at the end.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        if self.ended {
            return Ok(None);
        }
        let mut zeros = 0;
        loop {
            let Some(block) = self.block()? else {
                self.ended = true;
                return Ok(None);
            };
            if block.iter().all(|byte| *byte == 0) {
                zeros += 1;
                if zeros == 2 {
                    self.ended = true;
                    self.offset += io::copy(&mut self.inner, &mut io::sink()).map_err(Error::Source)?;
                    return Ok(None);
                }
                continue;
            }
            if zeros > 0 {
                return self.bad("a zero block in the middle of the archive");
            }
            let stored = self.number(&block[148..156], "checksum")?;
            let sum = |signed: bool| -> i64 {
                block
                    .iter()
                    .enumerate()
                    .map(|(i, byte)| match i {
                        148..156 => i64::from(b' '),
                        _ if signed => i64::from(byte.cast_signed()),
                        _ => i64::from(*byte),
                    })
                    .sum()
            };
            // Some old writers added up signed characters.
            if stored as i64 != sum(false) && stored as i64 != sum(true) {
                return self.bad("a header with a wrong checksum; is this a tar?");
            }
            return Ok(Some(block));
        }
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return self.bad("the archive ends in the middle of a header"),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Source(error)),
            }
        }
        self.offset += BLOCK as u64;
        Ok(Some(block))
    }

    fn number(&self, field: &[u8], what: &str) -> Result<u64, Error> {
        match self.signed(field, what)?.try_into() {
            Ok(value) => Ok(value),
            Err(_) => self.bad(format!("a negative {what}")),
        }
    }

    /// A number in octal, or (GNU) in base 256 behind a byte with its highest bit set.
    fn signed(&self, field: &[u8], what: &str) -> Result<i64, Error> {
        if field[0] & 0x80 != 0 {
            let negative = field[0] & 0x40 != 0;
            let start = if negative { -1i64 } else { 0 };
            let mut value = start;
            for (i, byte) in field.iter().enumerate() {
                let byte = if i == 0 && !negative { byte & 0x7f } else { *byte };
                match value.checked_mul(256) {
                    Some(shifted) => value = shifted | i64::from(byte),
                    None => return self.bad(format!("a {what} that is out of range")),
                }
            }
            return Ok(value);
        }
        let text = until_nul(field).trim_ascii();
        text.iter()
            .try_fold(0i64, |value, digit| match digit {
                b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
                _ => None,
            })
            .map_or_else(
                || {
                    self.bad(format!(
                        "a {what} that is no number: {:?}",
                        String::from_utf8_lossy(text)
                    ))
                },
                Ok,
            )
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
}

fn name_and_prefix(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&header[0..100]);
    if &header[257..263] != b"ustar\0" {
        return name.to_vec();
    }
    // Schily's star keeps times in the last 24 bytes of the prefix.
    let end = if &header[508..512] == b"tar\0" { 476 } else { 500 };
    let prefix = until_nul(&header[345..end]);
    if prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}
