//! Sparse files, in the four ways that GNU tar has written them (GNU tar manual, "Storing Sparse Files").

use std::io::Read;

use super::{BLOCK, Entry, Error, Reader, pax};

/// Bytes that one piece of a map costs at the least, to bound maps by the limit for headers.
const PIECE: u64 = 4;

/// What PAX records say of a sparse file.
#[derive(Default)]
pub(super) struct Pax {
    name: Option<Vec<u8>>,
    major: Option<u64>,
    size: Option<u64>,
    map: Vec<(u64, u64)>,
    half: Option<u64>,
    sparse: bool,
}

impl Pax {
    pub(super) fn name(&self) -> Option<&[u8]> {
        self.name.as_deref()
    }

    /// Takes one record without its `GNU.sparse.`; `None` when its value is malformed.
    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"major" => self.major = Some(pax::decimal(value)?),
            b"size" | b"realsize" => self.size = Some(pax::decimal(value)?),
            b"offset" => self.half = Some(pax::decimal(value)?),
            b"numbytes" => self.map.push((self.half.take()?, pax::decimal(value)?)),
            b"map" => {
                let mut numbers = value.split(|byte| *byte == b',').map(pax::decimal);
                while let Some(offset) = numbers.next() {
                    self.map.push((offset?, numbers.next()??));
                }
            }
            _ => return Some(()),
        }
        self.sparse = true;
        Some(())
    }
}

impl<R: Read> Reader<R> {
    /// The old format: four pieces in the header, more in blocks behind it.
    pub(super) fn old_gnu_sparse(&mut self, header: &[u8; BLOCK], entry: &mut Entry) -> Result<(), Error> {
        let stored = (self.remaining, self.padding);
        let mut map = Vec::new();
        let mut pieces = |reader: &Self, fields: &[u8]| -> Result<(), Error> {
            for piece in fields.chunks_exact(24).take_while(|piece| piece[0] != 0) {
                map.push((
                    reader.number(&piece[..12], "sparse offset")?,
                    reader.number(&piece[12..], "sparse length")?,
                ));
            }
            if map.len() as u64 * PIECE > reader.limits.header {
                return reader.bad("a sparse file with too many pieces");
            }
            Ok(())
        };
        pieces(self, &header[386..482])?;
        let size = self.number(&header[483..495], "sparse size")?;
        let mut more = header[482] != 0;
        while more {
            let Some(block) = self.block()? else {
                return self.bad("the archive ends in a sparse map");
            };
            pieces(self, &block[..504])?;
            more = block[504] != 0;
        }
        (self.remaining, self.padding) = stored;
        self.set_map(entry, map, size)
    }

    /// The PAX formats 0.0, 0.1 (map in records) and 1.0 (map in front of the data).
    pub(super) fn pax_sparse(&mut self, pax: &Pax, entry: &mut Entry) -> Result<(), Error> {
        if !pax.sparse {
            return Ok(());
        }
        let Some(size) = pax.size else {
            return self.bad("a sparse file without a size");
        };
        let map = if pax.major == Some(1) {
            self.map_before_data()?
        } else {
            pax.map.clone()
        };
        self.set_map(entry, map, size)
    }

    fn map_before_data(&mut self) -> Result<Vec<(u64, u64)>, Error> {
        let mut numbers = Vec::new();
        let mut digits = Vec::new();
        let mut wanted = 1u64;
        while (numbers.len() as u64) < wanted {
            let mut block = [0; BLOCK];
            self.read_exact_data(&mut block)?;
            for byte in block {
                if (numbers.len() as u64) == wanted {
                    break;
                }
                if byte != b'\n' {
                    digits.push(byte);
                    if digits.len() > 20 {
                        return self.bad("a sparse map with too long a number");
                    }
                    continue;
                }
                let Some(number) = pax::decimal(&digits) else {
                    return self.bad("a sparse map that is no list of numbers");
                };
                digits.clear();
                if numbers.is_empty() {
                    if number.saturating_mul(PIECE) > self.limits.header {
                        return self.bad("a sparse file with too many pieces");
                    }
                    wanted = 1 + 2 * number;
                }
                numbers.push(number);
            }
        }
        Ok(numbers[1..]
            .chunks_exact(2)
            .map(|piece| (piece[0], piece[1]))
            .collect())
    }

    fn set_map(&self, entry: &mut Entry, map: Vec<(u64, u64)>, size: u64) -> Result<(), Error> {
        let mut end = 0u64;
        let mut stored = 0u64;
        for (offset, length) in &map {
            let Some(next) = offset
                .checked_add(*length)
                .filter(|next| *offset >= end && *next <= size)
            else {
                return self.bad("a sparse map whose pieces overlap or lie behind the end of the file");
            };
            end = next;
            stored += length;
        }
        if stored != self.remaining {
            return self.bad("a sparse map that does not match the stored data");
        }
        if size > self.limits.uncompressed {
            return self.bad(format!(
                "a file of {size} bytes; {} are allowed",
                self.limits.uncompressed
            ));
        }
        entry.size = size;
        entry.sparse = Some(map);
        Ok(())
    }
}
