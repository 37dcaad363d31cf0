//! Archives that `ADD` unpacks: tar, plain or compressed, told from its bytes alone.

use super::Owner;
use crate::error::{BuildError, Result};
use slipway_layer::{Mode, UnpackOptions};
use std::{
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

/// A tar block.
const BLOCK: usize = 512;

/// A decompressed stream.
pub type Plain = Box<dyn Read + Send>;

/// The tar inside `content`, or `None` if it is not one. A compressed file that holds something else is not one either.
pub fn open(content: impl Read + Send + 'static) -> io::Result<Option<Plain>> {
    let mut content = BufReader::with_capacity(64 << 10, content);
    let head = content.fill_buf()?.to_vec();
    let mut plain: Plain = match head.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(content)),
        [0x42, 0x5a, 0x68, ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(content)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Box::new(lzma_rust2::XzReader::new(content, true)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Box::new(zstd::stream::read::Decoder::with_buffer(content)?)
        }
        _ => Box::new(content),
    };
    let mut block = [0; BLOCK];
    let mut filled = 0;
    while filled < BLOCK {
        match plain.read(&mut block[filled..]) {
            Ok(0) => return Ok(None),
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Looked compressed and is not.
            Err(_) => return Ok(None),
        }
    }
    if !is_header(&block) {
        return Ok(None);
    }
    Ok(Some(Box::new(io::Cursor::new(block).chain(plain))))
}

/// Whether a block is a tar header: its checksum says so.
fn is_header(block: &[u8; BLOCK]) -> bool {
    let field: String = block[148..156]
        .iter()
        .take_while(|byte| **byte != 0)
        .map(|byte| char::from(*byte))
        .collect();
    let Ok(expected) = i64::from_str_radix(field.trim(), 8) else {
        return false;
    };
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for (index, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&index) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    expected == unsigned || expected == signed
}

/// Unpacks a tar into an existing directory, over what is there.
pub(crate) fn unpack(plain: Plain, dest: &Path, owner: Option<Owner>) -> Result<()> {
    let options = UnpackOptions {
        mode: Mode::Apply,
        whiteouts: false,
        owner: owner.map(|owner| (owner.uid, owner.gid)),
        ..UnpackOptions::default()
    };
    slipway_layer::unpack(plain, dest, &options)
        .map(|_| ())
        .map_err(BuildError::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(2);
        header.set_mode(0o644);
        builder.append_data(&mut header, "f", &b"hi"[..]).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn a_tar_is_known_by_its_bytes() {
        let tar = archive();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&tar).unwrap();
        let zst = zstd::encode_all(&tar[..], 1).unwrap();
        for packed in [tar.clone(), gz.finish().unwrap(), zst] {
            let mut plain = Vec::new();
            open(io::Cursor::new(packed))
                .unwrap()
                .unwrap()
                .read_to_end(&mut plain)
                .unwrap();
            assert_eq!(plain, tar);
        }
    }

    #[test]
    fn what_is_no_tar_is_left_alone() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&[b'x'; 2000]).unwrap();
        for data in [
            b"not a tar".to_vec(),
            vec![0; 1024],
            vec![0x1f, 0x8b, 1, 2, 3],
            gz.finish().unwrap(),
            Vec::new(),
        ] {
            assert!(open(io::Cursor::new(data)).unwrap().is_none());
        }
    }
}
