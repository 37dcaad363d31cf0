//! Headers: plain ustar where everything fits, PAX records for what does not.

use super::{BLOCK, Entry, Kind, padding, pax};

/// Largest number in an octal field of `width` bytes, one of them the NUL at its end.
const fn octal_max(width: u32) -> u64 {
    (1 << (3 * (width - 1))) - 1
}

/// Appends the header of `entry` (and a PAX header in front of it if needed) to `out`. The data, and the padding behind
/// it, are the caller's.
pub(crate) fn write_header(out: &mut Vec<u8>, entry: &Entry) {
    let mut records = Vec::new();
    if entry.path.len() > 100 {
        records.push((b"path".to_vec(), entry.path.clone()));
    }
    if entry.link.len() > 100 {
        records.push((b"linkpath".to_vec(), entry.link.clone()));
    }
    for (name, value) in [("uid", entry.uid), ("gid", entry.gid)] {
        if value > octal_max(8) {
            records.push((name.into(), value.to_string().into_bytes()));
        }
    }
    if entry.size > octal_max(12) {
        records.push((b"size".to_vec(), entry.size.to_string().into_bytes()));
    }
    let seconds = entry.mtime.0;
    if seconds < 0 || seconds as u64 > octal_max(12) {
        records.push((b"mtime".to_vec(), seconds.to_string().into_bytes()));
    }
    for (name, value) in &entry.xattrs {
        let mut key = b"SCHILY.xattr.".to_vec();
        key.extend_from_slice(name);
        records.push((key, value.clone()));
    }
    if !records.is_empty() {
        records.sort();
        let mut data = Vec::new();
        for (key, value) in &records {
            pax::write_record(&mut data, key, value);
        }
        let mut name = b"PaxHeaders.0/".to_vec();
        let trimmed = entry.path.strip_suffix(b"/").unwrap_or(&entry.path);
        name.extend_from_slice(trimmed.rsplit(|byte| *byte == b'/').next().unwrap_or_default());
        let mut extended = Entry::new(name, Kind::File);
        extended.size = data.len() as u64;
        block(out, &extended, b'x');
        out.extend_from_slice(&data);
        out.resize(out.len() + padding(data.len() as u64), 0);
    }
    let flag = match entry.kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::Char => b'3',
        Kind::Block => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    };
    block(out, entry, flag);
}

/// The two zero blocks at the end.
pub(crate) fn end_of_archive() -> [u8; 2 * BLOCK] {
    [0; 2 * BLOCK]
}

/// One ustar header. A value that does not fit is left zero or cut: a PAX record in front says it in full.
fn block(out: &mut Vec<u8>, entry: &Entry, flag: u8) {
    let mut header = [0u8; BLOCK];
    text(&mut header[0..100], &entry.path);
    octal(&mut header[100..108], u64::from(entry.mode));
    octal(&mut header[108..116], entry.uid);
    octal(&mut header[116..124], entry.gid);
    octal(&mut header[124..136], entry.size);
    octal(&mut header[136..148], u64::try_from(entry.mtime.0).unwrap_or(0));
    header[148..156].fill(b' ');
    header[156] = flag;
    text(&mut header[157..257], &entry.link);
    header[257..263].copy_from_slice(b"ustar\0");
    header[263..265].copy_from_slice(b"00");
    octal(&mut header[329..337], u64::from(entry.device.0));
    octal(&mut header[337..345], u64::from(entry.device.1));
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut header[148..155], sum);
    out.extend_from_slice(&header);
}

fn text(field: &mut [u8], value: &[u8]) {
    let n = value.len().min(field.len());
    field[..n].copy_from_slice(&value[..n]);
}

fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let value = if value > octal_max(field.len() as u32) {
        0
    } else {
        value
    };
    for (i, place) in field[..digits].iter_mut().enumerate() {
        *place = b'0' + ((value >> (3 * (digits - 1 - i))) & 7) as u8;
    }
    field[digits] = 0;
}
